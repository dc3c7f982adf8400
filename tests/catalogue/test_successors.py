"""The codes that are awaited after each other, against ``docs/catalogue.md``."""

from __future__ import annotations

from pages import CATALOGUE, cells

from postbacks.catalogue import EVENTS
from postbacks.catalogue.successors import SUCCESSORS


def test_the_page_has_the_table_of_what_is_awaited_after_which() -> None:
    rows = [
        cells(line) for line in CATALOGUE.split("## Successors")[1].splitlines() if line.startswith("| ")
    ][2:]
    assert [
        [origin, code, ", ".join(awaited.codes), awaited.name, f"{awaited.within_s // 3600} h"]
        for (origin, code), awaited in SUCCESSORS.items()
    ] == rows


def test_what_is_awaited_is_an_event_of_the_same_origin_that_names_the_message_too() -> None:
    for (origin, code), awaited in SUCCESSORS.items():
        shared = {tag.name for tag in EVENTS[origin, code].tags} & {"TRACKINGID", "MMSID"}
        for successor in awaited.codes:
            assert shared & {tag.name for tag in EVENTS[origin, successor].tags}, (code, successor)
