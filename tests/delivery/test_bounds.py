"""Everything that grows has a bound, or an end: what is under keys, and what a loop remembers."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from postbacks import keys
from postbacks.delivery import held, open_transfers, profiles
from postbacks.delivery.claims import ClaimedPostback
from postbacks.delivery.held import HeldQueue, SharedTimeouts
from postbacks.delivery.open_transfers import OpenTransfers
from postbacks.delivery.profiles import Profiles
from postbacks.settings import Settings
from postbacks.transport import resolver
from postbacks.transport.resolver import ANSWERED, SILENT, UNKNOWN, Resolver

#: Rows of the schema: what stands in the first column -> the row's text.
ROWS = dict(re.findall(r"^(``.+?``(?: and sub-lists)?) +(?:list|hash|set|zset|string|stream) (.+(?:\n {40,}.*)*)", keys.__doc__, re.MULTILINE))  # fmt: skip


def test_every_key_has_a_row_and_every_row_a_bound():
    """The schema says of each key how much may stand there, or when it goes."""
    assert [row for row, text in ROWS.items() if not re.search(r"^ +bound: \S", text, re.MULTILINE)] == []
    listed = {row.strip("`").partition("``")[0].partition("{")[0] for row in ROWS}
    of_module = {value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)}
    assert of_module - {keys.PREFIX} == listed


def test_every_cache_of_the_package_has_a_size():
    """A function that keeps all that it was ever asked takes no argument, or one of which there are few."""
    root = Path(keys.__file__).parent
    texts = {path: path.read_text() for path in root.rglob("*.py")}
    assert [
        path for path, text in texts.items() if re.search(r"@lru_cache\b(?!\(maxsize=[\d_]+\))", text)
    ] == []
    endless = {name for text in texts.values() for name in re.findall(r"@cache\n *def (\w+)", text)}
    assert endless == {
        "_database",
        "assemble",
        "load",
        "tune_gc",
    }  # of a client, or a script


@pytest.fixture
def small(monkeypatch):
    """Bounds of ten."""
    for module, name in (
        (held, "LIMITS_MAX"), (held, "TIMEOUTS_MAX"), (resolver, "REMEMBERED_MAX"), (resolver, "WAITING_MAX"),
        (open_transfers, "MARKED_MAX"), (profiles, "PROFILES_MAX"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, 10)


def test_a_loop_keeps_some_profiles_the_latest_that_were_read(small):
    """However many accounts it sends for; what it asked for is there all the same."""
    del small
    store = SimpleNamespace(get_many=lambda _names: {})
    cache = Profiles(store, Settings())
    assert len(cache.look_up([f"a{number}" for number in range(50)], 0)) == 50
    cache.look_up(["latest"], 0)
    assert len(cache._cache) == 10
    assert "latest" in cache._cache


def test_a_loop_forgets_lanes_in_trouble_of_which_nothing_is_open(small):
    """Lanes that have a transfer open count, and are remembered."""
    del small
    transfers = OpenTransfers(100, 1.0)
    transfers.mark("open/mt", troubled=True)
    transfers.begin(SimpleNamespace(), SimpleNamespace(lane="open/mt"))
    for number in range(50):
        transfers.mark(f"a{number}/mt", troubled=True)
        transfers.mark(f"b{number}/mt", troubled=False, new=True)
    assert len(transfers._troubled) <= 10
    assert len(transfers._new) <= 10
    assert transfers.suspect_capacity().suspects == 49


def test_a_loop_forgets_limits_of_lanes_of_which_it_holds_nothing(small):
    """Though it always holds something of one."""
    del small
    queue = HeldQueue()
    for number in range(50):
        lane = f"a{number}/mt"
        queue.add(ClaimedPostback(f"p{number}", lane, 1, 0, f"a{number}", "SMS_MT", "N201", "e", 1))
        queue.record_mood(lane, "ok", 10)
    for number in range(49):
        queue.take_lane(f"a{number}/mt")
    queue.forget_limits()
    assert queue._limits == {"a49/mt": 2}


def test_a_loop_remembers_some_of_the_time_outs_that_it_was_told_of(small):
    """The latest ones."""
    del small
    shared = SharedTimeouts(
        HeldQueue(), Profiles(SimpleNamespace(get_many=lambda _names: {}), Settings()), None
    )
    shared.on_reported((f"e{number}".encode(), 1 + number, b"acme") for number in range(50))
    assert list(shared._timeouts) == [f"e{number}" for number in range(40, 50)]
    assert shared.latest_known_ms == 50


def test_of_names_some_wait_and_some_are_remembered(small, monkeypatch):
    """Silent names go before new ones, and those before names that have answered; of each the oldest."""
    del small
    monkeypatch.setattr(resolver, "LOOKUPS_MAX", 0)  # none is begun
    looked_up = Resolver()
    for number in range(50):
        looked_up._remember(f"silent{number}", SILENT)
    assert list(looked_up._last_ends) == [f"silent{number}" for number in range(40, 50)]
    for number in range(5):
        looked_up._remember(f"answered{number}", ANSWERED)
    for kind in ("answered", "silent4", "new"):
        for number in range(5, 10) if kind == "silent4" else range(5):
            assert looked_up.cached(f"{kind}{number}") is None
    waiting = [list(looked_up._waiting[hope]) for hope in (ANSWERED, UNKNOWN, SILENT)]
    assert waiting == [
        [f"answered{number}" for number in range(5)], [f"new{number}" for number in range(5)], []
    ]  # fmt: skip
    looked_up.give_up("new0")
    assert "new0" not in looked_up._waiting[UNKNOWN]
    looked_up.close()
