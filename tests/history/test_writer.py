"""Writer: what it makes of records, in any order, and what a failure leaves."""

from __future__ import annotations

import logging
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import ACCEPTED_MS, delivered, make_document, make_record
from sqlalchemy import Engine, text
from strategies import PROPERTY

from postbacks.errors import HistoryUnavailable, LeaseLost
from postbacks.history import documents, facts, ids, schema, values
from postbacks.history.transactions import reading
from postbacks.history.writer import Writer
from postbacks.ledger.record import Attempt

FAILED = Attempt(1, ACCEPTED_MS + 10, "status", 500, 12, "the answer was 500", "oops")
TIMED_OUT = Attempt(2, ACCEPTED_MS + 300_000, "connect_timeout", None, 10_000, "no connection within 10 s")
SUCCESS = Attempt(3, ACCEPTED_MS + 600_000, "delivered", 200, 40)

ROWS = """
SELECT p.row_id, p.id AS packed, a.name AS account, c.origin, c.code, c.group_name, s.name AS state, o.name AS outcome,
  p.status, p.elapsed_ms, p.sent_ms, p.attempts, p.failures, p.accepted_ms, p.ended_ms, p.reason, p.first_id, p.sequence,
  p.own, e.endpoint, e.host, u.url
FROM postbacks p JOIN accounts a ON a.id = p.account JOIN codes c ON c.id = p.code JOIN states s ON s.id = p.state
LEFT JOIN outcomes o ON o.id = p.outcome LEFT JOIN endpoints e ON e.id = p.endpoint LEFT JOIN urls u ON u.id = p.url
WHERE a.name LIKE :account ORDER BY p.accepted_ms, p.row_id
"""


def rows_of(database: Engine, postback_id: str | None = None, account: str = "%"):
    """Rows of the history, with names."""
    with reading(database) as connection:
        rows = connection.execute(text(ROWS), {"account": account}).all()
    return [row for row in rows if postback_id in {None, ids.unpack(row.packed)}]


def row_of(database: Engine, postback_id: str):
    """The one row of an id."""
    (row,) = rows_of(database, postback_id)
    return row


def attempts_of(database: Engine, row) -> dict[int, tuple[str, int]]:
    """Attempts of a row: number -> outcome and status. Of a plain success its row has it."""
    with reading(database) as connection:
        noted = connection.execute(
            text(
                "SELECT number, name, status FROM attempts JOIN outcomes ON id = outcome WHERE row_id = :row_id"
            ),
            {"row_id": row.row_id},
        ).all()
    if not noted and row.state == "delivered" and row.attempts == 1:
        return {1: (row.outcome, row.status)}
    return {number: (outcome, status) for number, outcome, status in noted}


def scalar(database: Engine, statement: str):
    """First value that a statement gives."""
    with reading(database) as connection:
        return connection.execute(text(statement)).scalar()


def assert_counts_are_exact(database: Engine) -> None:
    """``counts`` is what one counts in the rows, and ``hours`` are theirs."""
    keys = "hour, code, state, outcome, status, attempts"
    with reading(database) as connection:
        counted = connection.execute(text(f"SELECT {keys}, postbacks FROM counts ORDER BY {keys}")).all()
        grouped = connection.execute(
            text(f"SELECT {keys}, count(*) FROM postbacks GROUP BY {keys} ORDER BY {keys}")
        ).all()
        hours = connection.execute(text("SELECT hour FROM hours ORDER BY hour")).scalars().all()
    assert [tuple(row) for row in counted] == [tuple(row) for row in grouped]
    assert hours == sorted({row[0] for row in grouped})


# -- a row --------------------------------------------------------------------------------------


def test_a_success_is_one_row_without_an_attempt_of_its_own(writer, database):
    """The row has time, status and duration of the POST."""
    postback_id, fields = delivered(url="https://u:secret@Hooks.acme.example/p?key=secret#f")
    assert writer.write([(postback_id, fields)], recorded_id="5-0", recorded_ms=77) == 1
    row = row_of(database, postback_id)
    assert (row.account, row.origin, row.code, row.group_name) == ("acme", "SMS_MT", "N202", "mt")
    assert (row.state, row.outcome, row.status, row.elapsed_ms, row.attempts) == (
        "delivered", "delivered", 200, 35, 1,
    )  # fmt: skip
    assert (row.accepted_ms, row.sent_ms, row.ended_ms) == (ACCEPTED_MS, ACCEPTED_MS + 40, ACCEPTED_MS + 80)
    assert (row.reason, row.first_id, row.sequence) == (None, None, ACCEPTED_MS)
    assert (row.endpoint, row.host) == ("https://hooks.acme.example:443", "hooks.acme.example")
    assert row.url == "https://Hooks.acme.example/p?key=…"
    assert scalar(database, "SELECT count(*) FROM attempts") == 0
    with reading(database) as connection:
        assert documents.read(connection, row.row_id) == (documents.XML, fields[b"xml"])
        known = facts.read(connection)
    assert (known[facts.RECORDED_ID], known[facts.RECORDED_MS]) == ("5-0", "77")
    assert_counts_are_exact(database)


def test_a_calls_own_url_is_kept_whole(writer, database):
    """To send the postback again needs it."""
    url = "https://u:p@cb.example/x?token=1"
    writer.write([delivered("own", url=url, own="1"), delivered("account", url=url)])
    assert row_of(database, "own").url == url
    assert row_of(database, "account").url == "https://cb.example/x?token=…"


def test_a_url_longer_than_an_index_takes_is_kept(writer, database):
    """PostgreSQL's index takes 2,704 bytes."""
    url = "https://cb.example/" + "".join(f"{number:x}é" for number in range(450))
    writer.write([delivered("long", url=url, own="1"), delivered("again", url=url, own="1")])
    assert row_of(database, "long").url == row_of(database, "again").url == url
    assert scalar(database, "SELECT count(*) FROM urls") == 1


def test_failures_are_attempts(writer, database):
    """Each with what the receiver said."""
    writer.write(
        [make_record("x", state="parked", attempts=(FAILED, TIMED_OUT), next_ms=ACCEPTED_MS + 600_000)]
    )
    row = row_of(database, "x")
    assert (row.state, row.attempts, row.failures) == ("parked", 2, 2)
    assert (row.outcome, row.status, row.elapsed_ms, row.sent_ms) == (
        "connect_timeout", 500, 10_000, TIMED_OUT.at_ms,
    )  # fmt: skip
    assert attempts_of(database, row) == {1: ("status", 500), 2: ("connect_timeout", 0)}
    said = "SELECT detail, excerpt, shared FROM attempts ORDER BY number"
    with reading(database) as connection:
        assert connection.execute(text(said)).all() == [
            ("the answer was 500", "oops", 0),
            ("no connection within 10 s", None, 0),
        ]


@pytest.mark.parametrize("state", ["waiting", "sending"])
def test_what_is_sent_or_held_waits(writer, database, state):
    """The record in the broker says more."""
    writer.write([make_record("x", state=state, begun=1)])
    row = row_of(database, "x")
    assert (row.state, row.attempts, row.outcome, row.sent_ms) == ("waiting", 1, None, None)


def test_a_message_that_could_not_be_read_is_kept_as_it_came(writer, database):
    """The row names no event that anybody could search for, and no URL."""
    raw = b'{"not": "a postback\x00\xff"}'
    record = make_record(
        "bad", state="dead", account="", group="", origin="x\x00", code="y", url="", document=b"", raw=raw,
        reason="the message is no JSON: \x00", ended_ms=ACCEPTED_MS,
    )  # fmt: skip
    writer.write([record])
    row = row_of(database, "bad")
    assert (row.account, row.origin, row.code, row.group_name, row.url, row.endpoint) == (
        "", "", "", "", None, None,
    )  # fmt: skip
    assert row.reason == "the message is no JSON: \ufffd"
    with reading(database) as connection:
        assert documents.read(connection, row.row_id) == (documents.MESSAGE, raw)


def test_what_a_receiver_says_may_be_anything(writer, database):
    """NUL, halves of characters and bytes that are no UTF-8."""
    note = b'{"number": 1, "at_ms": 5, "outcome": "status", "status": 500, "excerpt": "a\\u0000\\ud800\xff"}'
    postback_id, fields = make_record("x", state="parked", begun=1)
    writer.write([(postback_id, fields | {b"attempt:1": note})])
    assert scalar(database, "SELECT excerpt FROM attempts") == "a\ufffd?\ufffd"


def test_a_stub_has_no_document(writer, database):
    """Neither a number of its account nor a URL."""
    stub = make_record(
        "stub", state="dead", url=None, endpoint=None, document=None, sequence=None, own=None, stub=1, xml=None,
        reason="backlog_full", ended_ms=ACCEPTED_MS,
    )  # fmt: skip
    writer.write([stub, delivered("next")])
    row = row_of(database, "stub")
    assert (row.sequence, row.url, row.reason) == (0, None, "backlog_full")
    with reading(database) as connection:
        assert documents.read(connection, row.row_id) is None
        assert documents.read(connection, row_of(database, "next").row_id) is not None


def test_business_values_are_found_by_their_hash(writer, database):
    """Two spellings of one number are one."""
    record = delivered("x", document=make_document("track-7", "15552310137", FROM="5552310137"))
    writer.write([record])
    with reading(database) as connection:
        found = connection.execute(text("SELECT hour, hash FROM business_values")).all()
    hour = ACCEPTED_MS // schema.HOUR_MS
    wanted = {values.hash_of("tracking_id", "track-7"), values.hash_of("number", "+1 555 231 0137")}
    assert {tuple(row) for row in found} == {(hour, digest) for digest in wanted}


# -- successive readings ------------------------------------------------------------------------


def test_a_row_is_brought_to_what_was_read_last(writer, database):
    """Waiting, parked twice, delivered: four readings, one row, three attempts."""
    for record in (
        make_record("x"),
        make_record("x", state="parked", attempts=(FAILED,)),
        make_record("x", state="parked", attempts=(FAILED, TIMED_OUT)),
        make_record("x", state="delivered", attempts=(FAILED, TIMED_OUT, SUCCESS), ended_ms=SUCCESS.at_ms),
    ):
        writer.write([record])
        assert_counts_are_exact(database)
    row = row_of(database, "x")
    assert (row.state, row.attempts, row.outcome, row.status) == ("delivered", 3, "delivered", 200)
    assert attempts_of(database, row) == {
        1: ("status", 500), 2: ("connect_timeout", 0), 3: ("delivered", 200),
    }  # fmt: skip
    assert scalar(database, "SELECT postbacks FROM counts") == 1


def test_an_attempt_stays_when_the_broker_was_restored_from_older_data(writer, database):
    """A first success, which had no row in ``attempts``, gets one."""
    writer.write([delivered("x")])
    writer.write([make_record("x")])
    row = row_of(database, "x")
    assert (row.state, row.attempts, row.outcome, row.status, row.elapsed_ms) == (
        "waiting", 1, "delivered", 200, 35,
    )  # fmt: skip
    assert attempts_of(database, row) == {1: ("delivered", 200)}
    assert_counts_are_exact(database)


def test_an_id_has_a_row_an_acceptance(writer, database):
    """In the same hour or another."""
    for accepted_ms in (ACCEPTED_MS, ACCEPTED_MS + 1, ACCEPTED_MS + schema.HOUR_MS):
        writer.write([delivered("x", accepted_ms=accepted_ms)])
    writer.write([delivered("x", accepted_ms=ACCEPTED_MS + 1)])
    assert [row.accepted_ms - ACCEPTED_MS for row in rows_of(database, "x")] == [0, 1, schema.HOUR_MS]
    assert_counts_are_exact(database)


def test_an_id_may_stand_in_a_batch_several_times(writer, database):
    """Of one acceptance the last reading counts."""
    writer.write(
        [
            make_record("x"),
            make_record("x", state="parked", attempts=(FAILED,)),
            delivered("x", accepted_ms=ACCEPTED_MS + 5),
            ("x", {}),
        ]
    )
    assert [(row.state, row.attempts) for row in rows_of(database, "x")] == [
        ("forgotten", 1), ("delivered", 1),
    ]  # fmt: skip
    assert_counts_are_exact(database)


@pytest.mark.parametrize("hash_of_left", [{}, {b"state": b"cancelled", b"reason": b"revoked"}])
def test_what_has_left_the_broker_is_forgotten_unless_it_had_ended(writer, database, hash_of_left):
    """An id that is only remembered as cancelled has no record either."""
    writer.write([make_record("open"), delivered("ended")])
    left = [("open", hash_of_left), ("ended", hash_of_left), ("never", hash_of_left)]
    assert writer.write(left, recorded_ms=ACCEPTED_MS + 9) == 1
    row = row_of(database, "open")
    assert (row.state, row.ended_ms) == ("forgotten", ACCEPTED_MS + 9)
    assert row_of(database, "ended").state == "delivered"
    assert rows_of(database, "never") == []
    assert_counts_are_exact(database)


def test_an_earlier_acceptance_that_was_open_is_forgotten(writer, database):
    """The broker has one record an id."""
    writer.write([make_record("x")])
    writer.write([make_record("x", accepted_ms=ACCEPTED_MS + 1)])
    assert [row.state for row in rows_of(database, "x")] == ["forgotten", "waiting"]
    assert_counts_are_exact(database)


def test_a_postback_that_goes_elsewhere_by_now_says_so(writer, database):
    """The account has another URL; both endpoints are the account's."""
    writer.write([make_record("x")])
    writer.write([delivered("x", url="https://new.acme.example/")])
    assert row_of(database, "x").host == "new.acme.example"
    assert scalar(database, "SELECT count(*) FROM account_endpoints") == 2


versions = st.lists(
    st.tuples(
        st.sampled_from(["status", "connect_timeout", "delivered", "unknown"]),
        st.booleans(),  # whether its reading has only begun
    ),
    max_size=4,
)


def lives(attempts_of_it: list[tuple[str, bool]], postback_id: str, accepted_ms: int, account: str):
    """Successive versions of one record."""
    made = [make_record(postback_id, accepted_ms=accepted_ms, account=account)]
    noted: list[Attempt] = []
    for number, (outcome, is_seen_open) in enumerate(attempts_of_it, start=1):
        if is_seen_open:
            made.append(
                make_record(
                    postback_id,
                    state="sending",
                    begun=number,
                    attempts=tuple(noted),
                    accepted_ms=accepted_ms,
                    account=account,
                )
            )
        status = {"status": 503, "delivered": 200}.get(outcome)
        noted.append(Attempt(number, accepted_ms + number * 300_000, outcome, status, number))
        is_last = number == len(attempts_of_it)
        state = "delivered" if outcome == "delivered" else "dead" if is_last else "parked"
        ended_ms = None if state == "parked" else noted[-1].at_ms + 10
        made.append(
            make_record(
                postback_id,
                state=state,
                attempts=tuple(noted),
                accepted_ms=accepted_ms,
                ended_ms=ended_ms,
                account=account,
            )
        )
        if outcome == "delivered":
            break
    return made


_example = count()


@given(st.data())
@settings(PROPERTY, max_examples=40)
def _test_any_order(database: Engine, data: st.DataObject) -> None:
    writer = Writer(database)
    writer.take_lease()
    example = next(_example)
    records = []
    for number, attempts in enumerate(data.draw(st.lists(versions, min_size=1, max_size=4))):
        accepted_ms = ACCEPTED_MS + number * data.draw(st.sampled_from([1, schema.HOUR_MS]))
        records.append(lives(attempts, f"{example}-{number}", accepted_ms, f"account-{example}"))
    reads = data.draw(st.lists(st.sampled_from([record for life in records for record in life]), max_size=12))
    last: dict[str, dict[bytes, bytes]] = {}
    merged: dict[str, dict[int, tuple[str, int]]] = {}
    while reads:
        batch = [reads.pop() for _ in range(min(len(reads), data.draw(st.integers(1, 4))))]
        writer.write(batch)
        for postback_id, fields in batch:
            last[postback_id] = fields
            for name, note in fields.items():
                if name.startswith(b"attempt:"):
                    attempt = Attempt.from_json(note)
                    noted = merged.setdefault(postback_id, {})
                    noted[attempt.number] = (attempt.outcome, attempt.status or 0)
    rows = {ids.unpack(row.packed): row for row in rows_of(database, account=f"account-{example}")}
    assert rows.keys() == last.keys()
    for postback_id, fields in last.items():
        row = rows[postback_id]
        noted = merged.get(postback_id, {})
        state = fields[b"state"].decode().replace("sending", "waiting")
        assert row.state == state
        assert row.attempts == max([int(fields[b"attempts"]), *noted])
        assert attempts_of(database, row) == noted
        latest = noted[max(noted)] if noted else (None, 0)
        assert (row.outcome, row.status) == (
            latest[0],
            next((status for _, (_, status) in sorted(noted.items(), reverse=True) if status), 0),
        )
    assert_counts_are_exact(database)


def test_in_any_order_attempts_are_merged_and_the_last_reading_says_the_state(database):
    """Any order and repetition of a record's successive versions, in batches of any size."""
    _test_any_order(database)


# -- records that cannot be read ----------------------------------------------------------------


#: What makes a record unreadable: a field and its value, None to leave it out.
BROKEN = [
    ("state", "asleep"),
    ("state", None),
    ("created_ms", None),
    ("created_ms", "soon"),
    ("created_ms", "1000000000000000000"),
    ("created_ms", "-1"),
    ("attempts", "40000"),
    ("attempts", "two"),
    ("ended_ms", "inf"),
    ("sequence", "1e99"),
    ("own", "?"),
    ("attempt:1", "{"),
    ("attempt:1", "[]"),
    ("attempt:1", '{"number": 1}'),
    ("attempt:1", '{"number": 1, "at_ms": 5, "outcome": "eaten"}'),
    ("attempt:1", '{"number": 1, "at_ms": "x", "outcome": "status"}'),
    ("attempt:x", "{}"),
]


def test_a_record_that_cannot_be_read_stops_no_other(writer, database, caplog):
    """Count and log it once; its row stays as it is."""
    broken = []
    for number, (name, value) in enumerate(BROKEN):
        postback_id, fields = make_record(f"bad-{number}", begun=1)
        writer.write([(postback_id, fields)])
        left = {key: text_ for key, text_ in fields.items() if key != name.encode()}
        broken.append((postback_id, left if value is None else left | {name.encode(): value.encode()}))
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            writer.write([*broken, delivered("good")])
    assert row_of(database, "good").state == "delivered"
    assert {row_of(database, postback_id).state for postback_id, _ in broken} == {"waiting"}
    assert scalar(database, "SELECT value FROM facts WHERE name = 'unreadable'") == str(len(BROKEN))
    assert sorted(record.fields["id"] for record in caplog.records) == sorted(name for name, _ in broken)


# -- failures -----------------------------------------------------------------------------------


def test_only_the_latest_lease_writes(database):
    """A recorder that was frozen while another took over writes nothing when it goes on."""
    first, second = Writer(database), Writer(database)
    with pytest.raises(LeaseLost):
        first.write([delivered("x")])
    assert (first.take_lease(), second.take_lease()) == (1, 2)
    with pytest.raises(LeaseLost, match="Another recorder"):
        first.write([delivered("x")], recorded_id="9-9")
    with pytest.raises(LeaseLost):
        first.write([])
    assert rows_of(database) == []
    assert scalar(database, "SELECT count(*) FROM facts WHERE name = 'recorded_id'") == 0
    assert second.write([delivered("x")]) == 1
    assert first.take_lease() == 3
    assert first.write([delivered("y", account="other")]) == 1
    assert {row.account for row in rows_of(database)} == {"acme", "other"}


class StopError(Exception):
    """Error that a test raises inside a transaction."""


def test_what_a_failed_transaction_gave_out_is_not_used(writer, database, monkeypatch):
    """Numbers of names and rows: another transaction may give the same ones to others."""

    def stop(*_):
        raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(writer._bulk, "count", stop)
        with pytest.raises(StopError):
            writer.write([delivered("x", account="lost", url="https://lost.example/")])
    assert rows_of(database) == []
    with database.begin() as connection:
        connection.execute(text("INSERT INTO accounts (id, name) VALUES (1, 'else')"))
        connection.execute(text("INSERT INTO endpoints (id, endpoint, host) VALUES (1, 'https://e:1', 'e')"))
    if database.dialect.name == "postgresql":  # its sequence gave the number out for good
        with database.begin() as connection:
            connection.execute(text("ALTER SEQUENCE accounts_id_seq RESTART WITH 2"))
    writer.write([delivered("x", account="lost", url="https://lost.example/")])
    row = row_of(database, "x")
    assert (row.account, row.host) == ("lost", "lost.example")
    assert_counts_are_exact(database)


def test_a_locked_database_is_waited_for_and_told(sqlite_url, monkeypatch):
    """The same writer goes on afterwards."""
    from postbacks.history import engine, migrations

    monkeypatch.setattr(engine, "_LOCK_MS", 50)
    made = engine.connect(sqlite_url)
    migrations.prepare(made)
    writer = Writer(made)
    writer.take_lease()
    with made.connect() as other:
        other.execution_options(sqlite_begin="BEGIN IMMEDIATE")
        other.execute(text("SELECT 1"))
        with pytest.raises(HistoryUnavailable, match="locked by another process"):
            writer.write([delivered("x")])
    assert writer.write([delivered("x")]) == 1
    made.dispose()


def test_a_full_disk_is_told_and_the_writer_goes_on(sqlite_url):
    """Nothing of the batch is written."""
    from postbacks.history import engine, migrations

    made = engine.connect(sqlite_url)
    migrations.prepare(made)
    writer = Writer(made)
    writer.take_lease()
    writer.write([delivered("first")])
    with made.connect() as connection:
        driver = connection.connection.driver_connection
        pages = driver.execute("PRAGMA page_count").fetchone()[0]
        driver.execute(f"PRAGMA max_page_count = {pages}").close()
    batch = [delivered(f"x{number}") for number in range(500)]
    with pytest.raises(HistoryUnavailable, match="no room left"):
        writer.write(batch)
    assert len(rows_of(made)) == 1
    with made.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA max_page_count = 1000000").close()
    assert writer.write(batch) == 500
    assert_counts_are_exact(made)
    made.dispose()
