"""Versions at work: who is seen by which trace, and which lack something."""

from __future__ import annotations

import pytest

from postbacks.broker.versions import is_before, versions_at_work
from postbacks.version import SILENT, VERSION, new_loop_id, set_worker, version_of, worker_of

NOW_MS = 1_000_000


@pytest.mark.parametrize(
    ("claimers", "ticks", "last_tick_ms", "work"),
    [
        ((), {}, None, {}),
        (("a@0.3.0", "b"), {}, None, {"0.3.0": {"delivers"}, SILENT: {"delivers"}}),
        ((), {"0.3.0": NOW_MS - 1_000}, NOW_MS - 1_000, {"0.3.0": {"ticks"}}),
        ((), {"0.3.0": NOW_MS - 61_000}, NOW_MS - 61_000, {}),
        ((), {"0.3.0": NOW_MS - 2_000}, NOW_MS - 1_000, {"0.3.0": {"ticks"}, SILENT: {"ticks"}}),
        ((), {"0.3.0": NOW_MS, SILENT: NOW_MS - 1_000}, NOW_MS, {"0.3.0": {"ticks"}, SILENT: {"ticks"}}),
        (("a",), {}, NOW_MS, {SILENT: {"delivers", "ticks"}}),
    ],
)
def test_a_version_is_at_work_while_it_delivers_and_a_minute_after_its_tick(
    claimers, ticks, last_tick_ms, work
):
    """A loop by its token, a tick by the hash; the last tick that stands in no hash is a silent version's."""
    assert versions_at_work(claimers, ticks, last_tick_ms, NOW_MS) == work


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("a", (SILENT, "")),
        ("a@0.2.0", ("0.2.0", "")),
        ("a@0.2.0@worker1@host", ("0.2.0", "worker1@host")),
    ],
)
def test_a_loops_name_says_its_version_and_its_worker(token, said):
    """As far as the version did that made it."""
    assert (version_of(token), worker_of(token)) == said


def test_a_loop_that_is_named_in_a_worker_says_which():
    """In an application, or a test, there is none."""
    assert worker_of(new_loop_id()) == ""
    set_worker("worker1@host")
    try:
        assert (version_of(new_loop_id()), worker_of(new_loop_id())) == (VERSION, "worker1@host")
    finally:
        set_worker("")


@pytest.mark.parametrize(
    ("version", "before"),
    [(SILENT, True), ("0.1.9", True), ("0.2.0", False), ("0.10.0", False), ("1.0", False), ("none", True)],
)
def test_versions_are_compared_as_numbers(version, before):
    """A version that is none counts as older; this one, even of a checkout that is not installed, never does."""
    assert is_before(version, "0.2.0") is before
    assert not is_before(VERSION, "99")
