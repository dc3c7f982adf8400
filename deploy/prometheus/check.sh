#!/bin/sh
# Checks the alerts with promtool (Debian's package `prometheus`), which is fetched where it is missing: only the
# package's file is unpacked below .venv, nothing is installed and no service is started.
set -eu
cd "$(dirname "$0")"
PROMTOOL=$(command -v promtool || echo ../../.venv/promtool/usr/bin/promtool)
if [ ! -x "$PROMTOOL" ]; then
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
    echo "promtool is missing, and so is apt-get: install Prometheus (https://prometheus.io/download/) and try again." >&2
    exit 1
  }
  mkdir -p ../../.venv/promtool
  (
    cd ../../.venv/promtool
    apt-get download prometheus 2>/dev/null || { apt-get update && apt-get download prometheus; } || {
      echo "promtool is missing and apt-get cannot fetch it: install the package prometheus and try again." >&2
      exit 1
    }
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
    rm prometheus_*.deb
  )
fi
"$PROMTOOL" check config prometheus.yml
"$PROMTOOL" check rules --lint=all --lint-fatal alerts.yml
"$PROMTOOL" test rules alerts_test.yml
