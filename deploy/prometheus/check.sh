#!/bin/sh
# Checks the alerts, and the queries of Grafana's dashboard, with promtool (Debian's package `prometheus`), which is fetched where it is missing: only the
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

# Each query of the dashboard as a rule of its own, as promtool reads rules alone; JSON is YAML as well.
QUERIES=$(mktemp)
trap 'rm -f "$QUERIES"' EXIT
../../.venv/bin/python - >"$QUERIES" <<'END'
import json

with open("../grafana/postbacks.json") as file:
    panels = json.load(file)["panels"]
queries = [target["expr"].replace("$__rate_interval", "1m") for panel in panels for target in panel.get("targets", ())]
rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
print(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
END
"$PROMTOOL" check rules --lint=none "$QUERIES"
