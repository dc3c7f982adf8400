"""Cost of a look: what the database and the broker are asked, and the bytes that a browser gets."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, event

from postbacks.history.strip import PARTS_MAX
from postbacks.web.reading import _Answer

LIVE = {"HX-Request": "true"}
#: Statements of a strip of time: one a part at most.
STRIP = PARTS_MAX + 4
#: Address -> most statements and commands of a first look, with a handful of postbacks, and most bytes of the page, packed.
#: Now and then a look reads besides who has logged out and which links were withdrawn.
COSTS = {
    "/": (28, 45, 4_500),
    "/incidents": (3, 6, 3_000),
    "/postbacks": (16 + STRIP, 10, 4_500),
    "/postbacks?q=account:acme%20state:dead": (18 + STRIP, 10, 4_500),
    "/postbacks?q=slower-than:500ms": (24 + STRIP, 10, 4_500),
    "/accounts": (12, 12, 3_000),
    "/accounts/acme": (16, 16, 4_000),
    "/opt-outs": (11, 8, 3_000),
    "/jobs": (0, 12, 3_000),
    "/journal": (3, 6, 3_000),
    "/system": (10, 65, 3_500),
    "/customer/": (18, 20, 3_500),
    "/customer/postbacks": (20 + STRIP, 10, 4_500),
}


@pytest.fixture
def asked():
    """Statements that this process has asked its databases since the list was last cleared."""
    statements: list[str] = []

    def note(_connection, _cursor, statement, *_):
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield statements
    event.remove(Engine, "before_cursor_execute", note)


def calls(client) -> int:
    """Count the commands that the broker has served, those inside scripts included, without the ones that count."""
    return sum(stat["calls"] for name, stat in client.info("commandstats").items() if name != "cmdstat_info")


def test_a_first_look_asks_a_known_number_of_times_and_a_second_one_not_at_all(
    world, browse, visit, asked, monkeypatch
):
    # however long a busy machine takes from one look to the next
    monkeypatch.setattr(_Answer, "is_fresh", lambda *_: True)
    world.dead("acme", 3)
    world.rig.tick()
    browser, client = visit("acme", browse()), world.rig.client
    browser.get("/filter?q=account:a")  # the connections are made
    found, again = {}, {}
    for address in COSTS:
        browser.app.state.reading.forget()
        asked.clear()
        before = calls(client)
        page = browser.get(address, headers={"Accept-Encoding": "gzip"})
        found[address] = (len(asked), calls(client) - before, int(page.headers["Content-Length"]))
        asked.clear()
        browser.get(address, headers=LIVE)
        again[address] = len(asked)
    too_much = {
        address: (costs, COSTS[address])
        for address, costs in found.items()
        if any(cost > most for cost, most in zip(costs, COSTS[address], strict=True))
    }
    assert not too_much
    assert {address for address, statements in again.items() if statements} <= {"/journal"}
