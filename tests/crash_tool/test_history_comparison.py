"""Comparison of ledger and history in ``make crash``: it finds each difference in lists that were made up."""

from __future__ import annotations

import pytest

from crash.history_comparison import NO_RECORD, HistoryComparison, Told, compare_history, told_by
from crash.plan import HISTORY_KINDS, KINDS, make_plan
from postbacks.ledger.record import Attempt, Record

POSTS = (Attempt(1, 1100, "status", 500, 7, excerpt="down"), Attempt(2, 3200, "delivered", 200, 9))
RIGHT = Told(
    1000, 3300, "acme", "mt", "SMS_MT", "N202", 1000, "delivered", "", "http://127.0.0.1:1/acme/0", "0", 2, 1,
    POSTS, "", b"<POSTBACK/>",
)  # fmt: skip


def compared(
    *rows: tuple[str, Told], counts: dict[str, int] | None = None, ids: tuple[str, ...] = ("a",)
) -> HistoryComparison:
    """Lists of which all is well, but for what is given: the ledger has ``a``, or these ids."""
    given = dict.fromkeys(ids, RIGHT)
    return compare_history(
        given,
        rows,
        {"N202 delivered": len(rows)} if counts is None else counts,
        {"N202 delivered": len(rows)},
    )


def test_lists_that_agree_show_no_difference():
    """Counts of a row, the same for all."""
    history = compared(("a", RIGHT))
    assert (history.rows, history.violations()) == (1, [])


def test_a_missing_one_is_reported():
    """The ledger has two, the history one."""
    history = compared(("a", RIGHT), ids=("a", "b"))
    assert history.missing == ["b"]
    assert history.violations() == ["1 missing in the history: b"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state", "forgotten"), ("state", "parked"), ("reason", "http_error"), ("begun", 1), ("failures", 0),
        ("attempts", POSTS[1:]), ("attempts", POSTS[:1]), ("attempts", (*POSTS, POSTS[1]._replace(number=3))),
        ("attempts", (POSTS[0]._replace(outcome="unknown"), POSTS[1])),
        ("attempts", (POSTS[0]._replace(excerpt=""), POSTS[1])),
        ("document", b""), ("account", "globex"), ("code", "N201"), ("sequence", 0), ("ended_ms", 3301),
        ("accepted_ms", 999), ("url", "http://127.0.0.1:2/acme/0"),
    ],
)  # fmt: skip
def test_a_wrong_one_is_reported_with_what_is_wrong(name, value):
    """Each field, and each attempt: one that is missing, one too many, another outcome."""
    history = compared(("a", RIGHT._replace(**{name: value})))
    assert history.wrong == {"a": [name]}
    assert history.violations() == [f"1 wrong in the history: a ({name})"]


def test_a_row_that_the_ledger_does_not_have_is_wrong():
    """A broker that syncs each write forgets nothing that a recorder has read."""
    assert compared(("a", RIGHT), ("b", RIGHT)).wrong == {"b": [NO_RECORD]}


def test_a_double_is_reported():
    """Two rows of one acceptance; and of another that never was."""
    for other in (RIGHT, RIGHT._replace(accepted_ms=2000)):
        history = compared(("a", RIGHT), ("a", other))
        assert (history.double, history.wrong, history.rows) == (["a"], {}, 2)
        assert history.violations() == ["1 twice in the history: a"]


@pytest.mark.parametrize("counts", [{"N202 delivered": 2}, {}, {"N202 delivered": 1, "N202 parked": 1}])
def test_counts_that_are_not_the_rows_are_reported(counts):
    """Too many, too few, and of something that no row is."""
    history = compared(("a", RIGHT), counts=counts)
    assert len(history.miscounted) == 1
    assert "counts of the history are not its rows" in history.violations()[0]


def test_a_record_tells_its_url_as_the_history_keeps_it():
    """An account's without its password, a call's own whole."""
    record = Record.from_hash(
        "a",
        {
            b"state": b"dead",
            b"url": b"http://user:word@127.0.0.1/x?key=1",
            b"raw": b"{}",
            b"created_ms": b"5",
        },
    )
    assert told_by(record, 0, "0").url == "http://127.0.0.1/x?key=…"
    assert told_by(record, 0, "1").url == record.url
    assert told_by(record, 0, "1").document == b"{}"


def test_faults_of_recorder_and_database_stand_beside_the_others():
    """Each kind at least once; the broker's own plan stays as it was."""
    plan = make_plan(7, 150, 3, KINDS | HISTORY_KINDS)
    assert {fault.kind for fault in plan} == KINDS.keys() | HISTORY_KINDS.keys()
    assert {fault.kind for fault in make_plan(7, 150, 3)} == set(KINDS)
