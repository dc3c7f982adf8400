"""Schema of the history: tables, indexes and their version. An interface: docs/history.md describes it.

Times are milliseconds since the epoch on the broker's clock; ``hour`` is one divided by ``HOUR_MS``, ``slot`` one divided by
``SLOT_MS`` (``slots.py``). Small numbers stand for names that repeat (accounts, endpoints, events, states, outcomes): a row with them takes a third of the bytes.

Indexes are led by time or by an account, so that new rows are written at few places of the file: an index spread over the
whole file, by id alone or by hash alone, costs three times the CPU a row and 131 KB of writing (measured, 10 million rows).
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    event,
    text,
)

from postbacks.ledger import states as ledger_states
from postbacks.transport.outcomes import OUTCOMES as OUTCOME_WORDS

#: Version of this schema; ``migrations.py`` brings an older database up to it, and a newer one is refused.
VERSION: Final = 2

HOUR_MS: Final = 3_600_000
#: Unit of the numbers of slots: 32 bits last for centuries. An hour has a whole number of them.
SLOT_MS: Final = 10_000

#: State -> its number. A postback that is sent or held counts as waiting here: its record in the broker says more.
STATES: Final = {
    ledger_states.WAITING: 0,
    ledger_states.PARKED: 1,
    ledger_states.DELIVERED: 2,
    ledger_states.DEAD: 3,
    ledger_states.SKIPPED: 4,
    ledger_states.CANCELLED: 5,
    # Not at its end when it was last read, and its record has left the broker since.
    "forgotten": 6,
}
#: Highest number of a state that is not an end.
LAST_OPEN: Final = STATES[ledger_states.PARKED]

#: Outcome of an attempt -> its number; 0 stands for none.
OUTCOMES: Final = {name: number for number, name in enumerate(OUTCOME_WORDS, start=1)}
#: Outcomes of attempts that were answered.
ANSWERED: Final = (OUTCOMES["delivered"], OUTCOMES["status"])

metadata: Final = MetaData()

#: Integer of 64 bits that SQLite takes as its rowid, too.
_ROW: Final = BigInteger().with_variant(Integer, "sqlite")

#: Facts of the history as a whole, a name and a text each (``facts.py``): schema, lease, until where it is recorded and pruned.
facts: Final = Table(
    "facts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)

accounts: Final = Table(
    "accounts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)

#: Events: one row a pair of origin and code. Both are empty for a message that could not be read.
codes: Final = Table(
    "codes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("origin", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("group_name", Text, nullable=False),
    Index("codes_by_name", "origin", "code", "group_name", unique=True),
)

#: Endpoints that POSTs went to. ``host`` is the endpoint's host alone, in lower case.
endpoints: Final = Table(
    "endpoints",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("endpoint", Text, nullable=False, unique=True),
    Column("host", Text, nullable=False, index=True),
)

#: URLs that postbacks went to. An account's (``own`` 0) is kept without user, password and values of its query. A call's own
#: (``own`` 1) is kept whole, as it is needed to send the postback again; it goes with the last postback that has it.
urls: Final = Table(
    "urls",
    metadata,
    Column("id", Integer, primary_key=True),
    Column(
        "hash", BigInteger, nullable=False, index=True
    ),  # of the text, which may be too long for an index of PostgreSQL
    Column("own", SmallInteger, nullable=False),
    Column("url", Text, nullable=False),
)

states: Final = Table(
    "states",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
)

outcomes: Final = Table(
    "outcomes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
)

#: Accounts and the endpoints that their postbacks went to: a search by host goes over the accounts of that host.
account_endpoints: Final = Table(
    "account_endpoints",
    metadata,
    Column("endpoint", Integer, primary_key=True),
    Column("account", Integer, primary_key=True),
    sqlite_with_rowid=False,
)

#: One row an acceptance: an id that left the broker and was accepted again has two. Long columns come first, as PostgreSQL
#: pads between a short one and a long one.
postbacks: Final = Table(
    "postbacks",
    metadata,
    Column("row_id", _ROW, primary_key=True),
    Column("accepted_ms", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),  # 0 for a stub
    Column("sent_ms", BigInteger),  # when the latest attempt that has ended began
    Column(
        "ended_ms", BigInteger
    ),  # of a forgotten one: until when history had read when it missed the record
    Column("slot", Integer, nullable=False),
    Column("account", Integer, nullable=False),
    Column("endpoint", Integer, nullable=False),  # 0 where it goes nowhere
    Column("elapsed_ms", Integer, nullable=False),  # of the latest attempt that has ended
    Column("url", Integer),
    Column("code", SmallInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("outcome", SmallInteger, nullable=False),  # of the latest attempt that has ended, 0 before
    Column("status", SmallInteger, nullable=False),  # of the latest answer, 0 where none came
    Column("attempts", SmallInteger, nullable=False),  # POSTs that have begun
    Column("failures", SmallInteger, nullable=False),
    Column("own", SmallInteger, nullable=False),  # 1: the URL came with the call, 2: and no account was known
    Column("opt_out", SmallInteger, nullable=False),  # 1: an opt-out (catalogue/opt_outs.py)
    Column("id", LargeBinary, nullable=False),  # ids.py
    Column("reason", Text),
    Column("first_id", Text),
    Column("phases", Text),  # of the latest attempt that has ended: ``Phases.packed``
    Column("address", Text),
)
#: An id has one row within most slots, and one an acceptance in any: the writer sees to it.
Index("postbacks_by_id", postbacks.c.slot, postbacks.c.id)
#: What a search filters by, so that it reads an index alone.
_FILTERED: Final = ("code", "state", "outcome", "status", "endpoint", "elapsed_ms", "attempts")
Index(
    "postbacks_by_account",
    postbacks.c.account,
    postbacks.c.accepted_ms,
    *(postbacks.c[name] for name in _FILTERED),
)
Index(
    "postbacks_by_time",
    postbacks.c.accepted_ms,
    postbacks.c.account,
    *(postbacks.c[name] for name in _FILTERED),
)
#: Duration from which on a delivery is slow.
SLOW_MS: Final = 1000
#: Those that were not delivered by their first POST, or slowly: few among many, and what people look for.
TROUBLED: Final = text(
    f"NOT (state = {STATES[ledger_states.DELIVERED]} AND attempts = 1 AND elapsed_ms < {SLOW_MS})"
)
Index(
    "postbacks_troubled",
    postbacks.c.accepted_ms,
    postbacks.c.account,
    *(postbacks.c[name] for name in _FILTERED),
    postbacks.c.reason,
    sqlite_where=TROUBLED,
    postgresql_where=TROUBLED,
)
OPEN: Final = text(f"state <= {LAST_OPEN}")
Index(
    "postbacks_open",
    postbacks.c.account,
    postbacks.c.accepted_ms,
    sqlite_where=OPEN,
    postgresql_where=OPEN,
)

#: Opt-outs, and those of them that are not delivered: few among many.
OPT_OUT: Final = text("opt_out = 1")
UNDELIVERED: Final = text(f"state <> {STATES[ledger_states.DELIVERED]}")
Index(
    "postbacks_opt_outs",
    postbacks.c.accepted_ms,
    postbacks.c.account,
    *(postbacks.c[name] for name in _FILTERED),
    sqlite_where=OPT_OUT,
    postgresql_where=OPT_OUT,
)
_UNDELIVERED_OPT_OUT: Final = text(f"{OPT_OUT} AND {UNDELIVERED}")
Index(
    "postbacks_opt_outs_undelivered",
    postbacks.c.accepted_ms,
    postbacks.c.account,
    *(postbacks.c[name] for name in _FILTERED),
    sqlite_where=_UNDELIVERED_OPT_OUT,
    postgresql_where=_UNDELIVERED_OPT_OUT,
)

#: What becomes of one whose record has left the broker is found by its id.
Index("postbacks_open_by_id", postbacks.c.id, sqlite_where=OPEN, postgresql_where=OPEN)
#: Those that ended more than an hour after their acceptance: few, and not pruned in the order of their acceptance.
LATE: Final = text(f"ended_ms > accepted_ms + {HOUR_MS}")
Index("postbacks_late", postbacks.c.ended_ms, sqlite_where=LATE, postgresql_where=LATE)
#: A call's own URL goes when no postback has it any more.
OWN: Final = text("own > 0")
Index("postbacks_by_own_url", postbacks.c.url, sqlite_where=OWN, postgresql_where=OWN)

#: Attempts that have ended. A postback that its only POST delivered, about whose answer no more is known, has no row here:
#: its own row has that POST.
attempts: Final = Table(
    "attempts",
    metadata,
    Column("row_id", _ROW, primary_key=True, autoincrement=False),
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("outcome", SmallInteger, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("elapsed_ms", Integer, nullable=False),
    Column("shared", SmallInteger, nullable=False),
    Column("detail", Text),
    Column("excerpt", Text),
    Column("phases", Text),  # ``Phases.packed``
    Column("address", Text),
    sqlite_with_rowid=False,
)

#: Documents as they were sent, packed (``documents.py``): those of ``row_count`` rows from ``row_id`` on together, as it takes
#: half the bytes.
documents: Final = Table(
    "documents",
    metadata,
    Column("row_id", _ROW, primary_key=True, autoincrement=False),
    Column("row_count", SmallInteger, nullable=False),
    Column("packing", SmallInteger, nullable=False),
    Column("pack", LargeBinary, nullable=False),
)

#: Business values of postbacks by their hash (``values.py``): phone numbers, TRACKINGIDs and the like.
business_values: Final = Table(
    "business_values",
    metadata,
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("hash", BigInteger, primary_key=True, autoincrement=False),
    Column("row_id", _ROW, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

#: Rows of which a person was forgotten, and when: what identified the person is erased (``erasing.py``).
forgotten: Final = Table(
    "forgotten",
    metadata,
    Column("row_id", _ROW, primary_key=True, autoincrement=False),
    Column("forgotten_ms", BigInteger, nullable=False),
)

#: Slots of which there are postbacks: a search by value or id goes over them.
slots: Final = Table(
    "slots",
    metadata,
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("postbacks", BigInteger, nullable=False),
)

#: Counts of postbacks, changed in the transaction that changes their rows: counts without an account read it alone.
counts: Final = Table(
    "counts",
    metadata,
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("code", SmallInteger, primary_key=True, autoincrement=False),
    Column("state", SmallInteger, primary_key=True, autoincrement=False),
    Column("outcome", SmallInteger, primary_key=True, autoincrement=False),
    Column("status", SmallInteger, primary_key=True, autoincrement=False),
    Column("attempts", SmallInteger, primary_key=True, autoincrement=False),
    Column("postbacks", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: Incidents (``operate/incidents/``): one row from its opening on, through every time that it comes back within an hour.
incidents: Final = Table(
    "incidents",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    # its course
    Column("opened_ms", BigInteger, nullable=False),
    Column("looked_ms", BigInteger, nullable=False),
    Column("told_ms", BigInteger, nullable=False),
    Column("told_size", BigInteger, nullable=False),
    Column("told_level", SmallInteger, nullable=False),
    Column("quiet_ms", BigInteger, nullable=False),
    Column("times_back", Integer, nullable=False),
    Column("grew_ms", BigInteger),
    Column("ended_ms", BigInteger),
    # what stands, as it was last looked up
    Column("since_ms", BigInteger),
    Column("size", BigInteger, nullable=False),
    Column("title", Text, nullable=False),
    Column("sentence", Text, nullable=False),
    Column("advice", Text, nullable=False),
    Column("accounts", Text, nullable=False),
    Column("figures", Text, nullable=False),
    Column("resend", Text, nullable=False),
    Column("refined_ms", BigInteger, nullable=False),
    Column("part_of", Integer),
    # who wants no notices of it
    Column("muted_until_ms", BigInteger),
    Column("mute_reason", Text),
    Column("muted_by", Text),
    Column("withheld", SmallInteger, nullable=False),
)
Index(
    "incidents_open",
    incidents.c.id,
    sqlite_where=text("ended_ms IS NULL"),
    postgresql_where=text("ended_ms IS NULL"),
)
Index("incidents_by_end", incidents.c.ended_ms)

#: Notices of incidents: stored before they are told, one a change.
notices: Final = Table(
    "notices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("notice_id", Text, nullable=False),
    Column("incident", Integer, nullable=False, index=True),
    Column("change", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Column("is_logged", SmallInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_ms", BigInteger, nullable=False),
    Column("done_ms", BigInteger),
    Column("fault", Text),
)
#: Notices that are to be logged or sent: few.
PENDING: Final = text("(is_logged = 0 OR state = 'pending')")
Index("notices_pending", notices.c.id, sqlite_where=PENDING, postgresql_where=PENDING)

#: Resends of postbacks: by whom, and by which job (empty for none), before which attempt.
resends: Final = Table(
    "resends",
    metadata,
    Column("row_id", _ROW, primary_key=True, autoincrement=False),
    Column("attempts", SmallInteger, primary_key=True, autoincrement=False),  # that it had before
    Column("at_ms", BigInteger, nullable=False),
    Column("by_whom", Text, nullable=False),
    Column("job", Text, nullable=False),
    sqlite_with_rowid=False,
)

#: Jobs whose frozen sets stand in ``job_postbacks``, until they have ended.
job_sets: Final = Table(
    "job_sets",
    metadata,
    Column("job", Text, primary_key=True),
    Column("frozen_ms", BigInteger),  # none while it is being frozen
    sqlite_with_rowid=False,
)

#: Postbacks of jobs (``operate/jobs/``), in the order in which an account's are moved: those of a lower rank first, then by
#: their acceptance. ``row_id`` is 0 of one that history did not have.
job_postbacks: Final = Table(
    "job_postbacks",
    metadata,
    Column("job", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("rank", SmallInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("id", LargeBinary, primary_key=True),
    Column("accepted_ms", BigInteger, nullable=False),
    Column("row_id", _ROW, nullable=False),
    sqlite_with_rowid=False,
)

#: Journal of operators: who did what, when and why (``operate/journal.py``). Rows are added and, past their days, pruned.
journal: Final = Table(
    "journal",
    metadata,
    Column("row_id", _ROW, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("at_ms", BigInteger, nullable=False, index=True),
    Column("by_user", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("details", Text, nullable=False),  # JSON
)
#: Statements that have the database refuse a change of an entry, whoever it is of.
_APPEND_ONLY: Final = (
    (
        "sqlite",
        (
            "CREATE TRIGGER journal_append_only BEFORE UPDATE ON journal "
            "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
        ),
    ),
    (
        "postgresql",
        (
            "CREATE OR REPLACE FUNCTION journal_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the journal is append-only'; END $$"
        ),
    ),
    (
        "postgresql",
        (
            "CREATE TRIGGER journal_append_only BEFORE UPDATE ON journal "
            "FOR EACH STATEMENT EXECUTE FUNCTION journal_append_only()"
        ),
    ),
)
for _dialect, _statement in _APPEND_ONLY:
    event.listen(journal, "after_create", DDL(_statement).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call]
