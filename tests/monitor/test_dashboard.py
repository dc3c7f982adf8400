"""deploy/grafana: a dashboard that Grafana imports, on metrics and labels that are documented."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pages import cells
from promql import TARGET_LABELS, grouping_labels, selectors

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "postbacks.json").read_text())
ROWS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TABLE = (ROOT / "docs" / "monitoring.md").read_text().split("| metric |")[1].split("\n\n")[0]
#: Metric -> its labels, as docs/monitoring.md lists them; tests/monitor/test_metrics_and_health.py compares that with a stack.
LABELS = {
    row[0].strip("`"): {name.strip() for name in row[2].split(",") if name.strip()}
    for row in (cells(line) for line in TABLE.splitlines() if line.startswith("| `"))
}


def test_grafana_can_import_it():
    """The fields of Grafana's model that an import wants; nothing of the Grafana that drew it."""
    assert DASHBOARD["schemaVersion"] >= 39
    assert DASHBOARD["id"] is None
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", DASHBOARD["uid"])
    assert DASHBOARD["title"]
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in PANELS:
        assert panel["type"] in {"timeseries", "stat"}
        assert panel["title"]
        assert panel["description"].endswith(".")
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        names = [target["refId"] for target in panel["targets"]]
        assert len(names) == len(set(names)) >= 1


def test_no_two_panels_share_a_place():
    """Grafana's grid is 24 wide; rows go over the whole of it."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        places = {
            (x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
        }
        assert max(x for x, _ in places) < 24
        assert not places & taken, panel["title"]
        taken |= places
    assert all(row["gridPos"]["w"] == 24 for row in ROWS)
    assert len(taken) == 24 * max(y + 1 for _, y in taken), "a hole"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_its_queries_ask_for_metrics_and_labels_that_are_documented(panel):
    """Names, matchers, groupings and legends."""
    for target in panel["targets"]:
        asked = selectors(target["expr"])
        assert asked
        known = {"le"} | TARGET_LABELS
        for selector in asked:
            labels = LABELS[selector.metric] | {"le"}
            assert {label for label, *_ in selector.matchers} <= labels
            known |= labels
        grouped = grouping_labels(target["expr"])
        assert grouped <= known
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= grouped
