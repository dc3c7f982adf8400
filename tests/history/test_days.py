"""Statistics of a day that are kept by the hour, held against ``stats``, on both databases."""

from __future__ import annotations

import random

import pytest
from records import ACCEPTED_MS
from sqlalchemy import event, text
from test_statistics import records

from postbacks.errors import HistoryUnavailable
from postbacks.history import Query, days, schema, stats
from postbacks.history.days import DAY_MS, AccountCounts, DayByAccount, DayOfAccount

HOUR_MS = schema.HOUR_MS
#: Half an hour after the last acceptance of ``records``.
NOW_MS = ACCEPTED_MS + 3 * HOUR_MS + 1_800_000


def rounded(ms: int | None) -> int | None:
    """Leave two digits of a duration."""
    return ms and ms // 10 ** (len(str(ms)) - 2) * 10 ** (len(str(ms)) - 2) if ms and ms >= 100 else ms


def expected(engine, now_ms: int) -> dict[str, AccountCounts]:
    """Count by ``stats``."""
    return {
        row.key: AccountCounts(
            row.postbacks, row.sent, row.first, row.dead, row.open, rounded(row.p50_ms), rounded(row.p95_ms)
        )
        for row in stats(Query(since_ms=now_ms - DAY_MS), "account", engine=engine).rows
    }


def change(engine, rng: random.Random, writer) -> None:
    """Let half of the open ones end, as the writer would write them."""
    made = records(600)
    chosen = [
        record for record in made if record[1][b"state"] in {b"parked", b"waiting"} and rng.random() < 0.5
    ]
    for _, fields in chosen:
        fields[b"state"], fields[b"ended_ms"] = b"dead", b"%d" % (NOW_MS - 1)
    writer.write(chosen, recorded_ms=NOW_MS)


def test_a_day_is_what_stats_counts_whatever_changes_between_two_looks(database, writer):
    writer.write(records(600), recorded_ms=NOW_MS)
    by_account, acme = DayByAccount(), DayOfAccount("acme")
    rng = random.Random(19)
    # Hours leave the day one by one; the day begins within one of them.
    for hours in (0, 0, 0, 21, 22, 23, 24, 25, 30):
        now_ms = NOW_MS + hours * HOUR_MS
        assert by_account.read(now_ms, engine=database) == expected(database, now_ms)
        assert acme.read(now_ms, engine=database) == stats(
            Query(account="acme", since_ms=now_ms - DAY_MS), "hour", engine=database
        )
        change(database, rng, writer)


def test_an_hour_of_which_nothing_has_changed_is_not_counted_again(database, writer):
    writer.write(records(600), recorded_ms=NOW_MS)
    asked: list[str] = []
    event.listen(
        database, "before_cursor_execute", lambda _connection, _cursor, statement, *_: asked.append(statement)
    )

    def counted() -> int:
        asked.clear()
        assert by_account.read(NOW_MS, engine=database)
        return sum("FROM postbacks p" in statement and "GROUP BY" in statement for statement in asked)

    by_account = DayByAccount()
    assert counted() == 4
    assert counted() == 0
    one = records(600)[-1]
    one[1][b"state"] = b"cancelled" if one[1][b"state"] != b"cancelled" else b"skipped"
    writer.write([one], recorded_ms=NOW_MS)
    assert counted() == 1
    with database.begin() as connection:
        connection.execute(text("DELETE FROM counts"))
        connection.execute(text("DELETE FROM postbacks"))
    assert by_account.read(NOW_MS, engine=database) == {}


def test_two_changes_that_make_up_for_each_other_are_seen_after_a_while(database, writer, monkeypatch):
    writer.write(records(600), recorded_ms=NOW_MS)
    by_account = DayByAccount()
    by_account.read(NOW_MS, engine=database)
    with database.begin() as connection:
        connection.execute(text("UPDATE postbacks SET account = 1 WHERE account = 2"))
    assert by_account.read(NOW_MS, engine=database) != expected(database, NOW_MS)
    monkeypatch.setattr(days, "_KEPT_S", -1)
    for _ in range(4):  # an hour at each look
        counts = by_account.read(NOW_MS, engine=database)
    assert counts == expected(database, NOW_MS)


def test_more_than_one_call_counts_is_counted_by_the_next_ones(database, writer, monkeypatch):
    writer.write(records(600), recorded_ms=NOW_MS)
    monkeypatch.setattr(days, "WITHIN_S", -1)
    by_account = DayByAccount()
    with pytest.raises(HistoryUnavailable, match="are being counted, 0 hours so far; look again"):
        by_account.read(NOW_MS, engine=database)
    monkeypatch.setattr(days, "WITHIN_S", 60)
    assert by_account.read(NOW_MS, engine=database) == expected(database, NOW_MS)
    with by_account._lock, pytest.raises(HistoryUnavailable, match="4 hours so far"):
        by_account.read(NOW_MS, engine=database)
