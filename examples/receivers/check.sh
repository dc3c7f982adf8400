#!/bin/sh
# Runs the receivers in all five languages and writes the table of their answers into README.md. Where a language is
# missing, apt-get installs Debian's packages of it first.
set -eu
cd "$(dirname "$0")/../.."
MISSING=
php -r 'exit(array_diff(["pdo_sqlite", "xmlreader"], get_loaded_extensions()) ? 1 : 0);' 2>/dev/null ||
  MISSING="$MISSING php-cli php-sqlite3 php-xml"
command -v node >/dev/null || MISSING="$MISSING nodejs"
command -v javac >/dev/null || MISSING="$MISSING default-jdk-headless"
command -v go >/dev/null || MISSING="$MISSING golang-go"
if [ -n "$MISSING" ]; then
  INSTALL="apt-get install --yes --no-install-recommends$MISSING"
  command -v apt-get >/dev/null || {
    echo "These are missing, and so is apt-get: install Debian's packages$MISSING, or what your system has for them." >&2
    exit 1
  }
  [ "$(id -u)" = 0 ] || {
    echo "Languages are missing, and only root can install them: sudo $INSTALL" >&2
    exit 1
  }
  echo "Installing$MISSING with apt-get."
  # The lists of packages may be old, or not there.
  $INSTALL >/dev/null 2>&1 || { apt-get update && $INSTALL; }
fi
RECEIVERS_REQUIRED=1 RECEIVERS_TABLE=1 .venv/bin/python -m pytest -m '' tests/receivers
sed -n '/^| hostile request/,/^$/p' examples/receivers/README.md
