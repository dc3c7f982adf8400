"""deploy/prometheus: alerts, on metrics that there are, each with a runbook entry that there is."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from pages import anchors
from promql import selectors

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RULES = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
DOCS = (ROOT / "docs" / "monitoring.md").read_text()


def test_each_alert_links_a_runbook_entry_that_there_is():
    """An anchor that the page does not have fails."""
    links = {rule["alert"]: rule["annotations"]["runbook"] for rule in RULES}
    assert len(links) == len(set(links.values())) == len(RULES)
    missing = []
    for alert, link in links.items():
        page, _, anchor = link.partition("#")
        assert page in {"docs/reliability.md", "docs/operating.md"}, alert
        assert anchor
        path = ROOT / page
        if path.exists() and anchor not in anchors(path.read_text()):
            missing.append(link)
    assert missing == []
    assert anchors('## Beat stopped\n### One customer: "down"?\n<a id="here"></a>') == {
        "beat-stopped", "one-customer-down", "here",
    }  # fmt: skip


def test_alerts_ask_for_metrics_that_are_documented_and_are_in_the_docs_themselves():
    """No expression names a metric that is not exposed; each alert is in the page's table and has its trial."""
    known = set(re.findall(r"(?m)^\| `(postbacks_\w+)`", DOCS))
    for rule in RULES:
        used = {selector.metric for selector in selectors(rule["expr"])}
        assert used
        assert used <= known
    names = {rule["alert"] for rule in RULES}
    assert set(re.findall(r"(?m)^\| `(Postbacks\w+)`", DOCS)) == names
    trials = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    tried = [case for trial in trials for case in trial["alert_rule_test"]]
    assert {case["alertname"] for case in tried if case.get("exp_alerts")} == names
    assert {case["alertname"] for case in tried if not case.get("exp_alerts")} == names
