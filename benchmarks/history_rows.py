"""Rows of a history as a month of an operator makes them, written in bulk: the same ones for the same number.

200 accounts of very different size; every event of the catalogue; 97% delivered by their first POST. A receipt of what was
submitted has its TRACKINGID and its number. Each has its document, packed as the recorder packs it.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from itertools import accumulate
from operator import itemgetter

from sqlalchemy import Connection, Engine, text

from postbacks.catalogue import table
from postbacks.history import documents, schema
from postbacks.history.documents import Document
from postbacks.history.schema import HOUR_MS, SLOT_MS
from postbacks.history.slots import first_of_hour
from postbacks.history.values import hash_of

ACCOUNTS = 200
DAYS = 30
#: Monday, 1 June 2026, 00:00 UTC.
BEGIN_MS = 1_780_272_000_000
#: Rows that are written at once.
BATCH = 20_000
#: Events and their share of the traffic, in thousandths; the rest is spread over all others.
_SHARES = {
    ("SMS_MT", "N202"): 400,
    ("SMS_MT", "N201"): 420,
    ("SMS_MO", "N211"): 90,
    ("SMS_MT", "E202"): 15,
    ("MMS_MT", "N202"): 15,
    ("SUB", "N301"): 10,
    ("SUB", "N302"): 10,
}
_OTHER_SHARE = 1.5
#: Ends of what its first POST did not deliver: state, outcome, status, POSTs, reason, share.
_TROUBLES = (
    ("delivered", "delivered", 200, 2, None, 60),
    ("delivered", "delivered", 200, 3, None, 10),
    ("dead", "status", 503, 6, "status", 8),
    ("dead", "connect_timeout", 0, 6, "connect_timeout", 6),
    ("dead", "status", 404, 6, "status", 4),
    ("dead", "", 0, 0, "no_url", 3),
    ("skipped", "", 0, 0, "origin_off", 4),
    ("cancelled", "", 0, 0, "revoked", 2),
    ("parked", "status", 503, 2, None, 2),
    ("waiting", "", 0, 0, None, 1),
)
_STATES, _OUTCOMES = schema.STATES, schema.OUTCOMES | {"": 0}
#: Tags with a business value, by group; others by their origin. Names in brackets stand for what is another's in each.
_VALUES = {
    "mt": {"MMSID": "MMS%(tracking)b", "TRACKINGID": "%(tracking)b", "TO": "%(subscriber)b"},
    "mo": {"FROM": "%(subscriber)b", "TO": "%(short_code)b"},
    "pass": {"SERIALNUMBER": "SN%(tracking)b"},
    "EMAIL_SUB": {"EMAIL": "%(subscriber)b@mail.example"},
    "general": {"MOBILE": "%(subscriber)b", "SUBID": "SUB%(tracking)b"},
}
#: Other tags that documents have.
_TEXTS = {
    "STATUS": "Message Sent/Delivered",
    "FROM_MASK": "ACME",
    "SPID": "0032",
    "TIMESTAMP": "2026-06-01T09:30:00+00:00",
    "AGGREGATORID": "%(subscriber)b7",
    "STATUSDETAILS": "Delivered to handset, message accepted by the carrier",
    "TEXT": "Yes, please call me back after six",
    "RECEIVED": "2026-06-01T09:30:00+00:00",
    "CAMPAIGNID": "31277",
}


class Rows:
    """Rows of a history, in the order of their acceptance."""

    def __init__(self, number: int, *, days: int = DAYS, seed: int = 16, begin_ms: int = BEGIN_MS) -> None:
        self.number = number
        self.begin_ms = begin_ms
        self.span_ms = days * 24 * HOUR_MS
        self.events = table()
        self.templates = [template_of(row) for row in self.events]
        self.random = random.Random(seed)
        # The largest account has a seventh of all, the smallest a few in a hundred thousand.
        self.sizes = list(accumulate(1 / (rank + 1) ** 1.05 for rank in range(ACCOUNTS)))
        self.shares = list(
            accumulate(_SHARES.get((row.origin, row.code), _OTHER_SHARE) for row in self.events)
        )
        self.troubles = list(accumulate(share for *_, share in _TROUBLES))
        self.counts: Counter[tuple[int, ...]] = Counter()
        self.slots: Counter[int] = Counter()
        self.submitted: deque[tuple[int, str, str]] = deque()

    def names(self) -> dict[str, list[tuple]]:
        """Rows of the tables of names."""
        # Three in four accounts have an endpoint of their own; the others share those of ten platforms.
        hosts = [
            f"hooks.{account_name(number)}.example" if number % 4 else f"platform{number % 10}.example"
            for number in range(ACCOUNTS)
        ]
        known = list(dict.fromkeys(hosts))
        self.endpoint_of = [known.index(host) + 1 for host in hosts]
        return {
            "accounts": [(number + 1, account_name(number)) for number in range(ACCOUNTS)],
            "codes": [
                (number, row.origin, row.code, row.group) for number, row in enumerate(self.events, start=1)
            ],
            "endpoints": [
                (number, f"https://{host}:443", host) for number, host in enumerate(known, start=1)
            ],
            "urls": [
                (number, number, 0, f"https://{host}/postbacks/{account_name(number - 1)}")
                for number, host in enumerate(hosts, start=1)
            ],
            "states": [(number, name) for name, number in _STATES.items()],
            "outcomes": [(number, name) for name, number in schema.OUTCOMES.items()],
            "account_endpoints": sorted(
                (endpoint, account) for account, endpoint in enumerate(self.endpoint_of, 1)
            ),
        }

    def batches(self):
        """Yield rows of ``postbacks``, ``business_values``, ``attempts`` and ``documents``, a batch at a time."""
        for first in range(0, self.number, BATCH):
            yield self._batch(range(first, min(first + BATCH, self.number)))

    def _batch(self, numbers: range):
        postbacks, values, attempts, contents = [], [], [], []
        random_, count = self.random, len(numbers)
        accounts = random_.choices(range(ACCOUNTS), cum_weights=self.sizes, k=count)
        events = random_.choices(range(len(self.events)), cum_weights=self.shares, k=count)
        troubles = random_.choices(_TROUBLES, cum_weights=self.troubles, k=count)
        for number, account, event, trouble in zip(numbers, accounts, events, troubles, strict=True):
            row = self.events[event]
            tracking, subscriber = f"MT{number:012d}", f"1555{random_.randrange(10_000_000):07d}"
            if (row.origin, row.code) == ("SMS_MT", "N201"):
                self.submitted.append((account, tracking, subscriber))
            elif (row.origin, row.code) == ("SMS_MT", "N202") and len(self.submitted) > 50:
                account, tracking, subscriber = self.submitted.popleft()  # noqa: PLW2901
            accepted_ms = self.begin_ms + self.span_ms * number // self.number
            row_id, hour, slot = number + 1, accepted_ms // HOUR_MS, first_of_hour(accepted_ms)
            state, outcome, status, posts, reason, _ = (
                trouble if random_.random() < 0.03 else ("delivered", "delivered", 200, 1, None, 0)
            )
            elapsed_ms = int(random_.lognormvariate(4.4, 0.9)) if outcome else 0
            if outcome == "connect_timeout":
                elapsed_ms = 10_000
            sent_ms = accepted_ms + 400 + max(0, posts - 1) * 300_000 if outcome else None
            is_open = _STATES[state] <= schema.LAST_OPEN
            ended_ms = None if is_open else (sent_ms or accepted_ms) + elapsed_ms
            postbacks.append(
                {
                    "row_id": row_id,
                    "slot": slot,
                    "id": b"\x01" + random_.randbytes(16),
                    "accepted_ms": accepted_ms,
                    "account": account + 1,
                    "code": event + 1,
                    "state": _STATES[state],
                    "outcome": _OUTCOMES[outcome],
                    "status": status,
                    "endpoint": self.endpoint_of[account],
                    "elapsed_ms": elapsed_ms,
                    "attempts": posts,
                    "failures": posts - 1 if posts > 1 else 0,
                    "sequence": number + 1,
                    "sent_ms": sent_ms,
                    "ended_ms": ended_ms,
                    "url": account + 1,
                    "own": 0,
                    "opt_out": int(row.code in {"N302", "N304"}),
                    "reason": reason,
                    "first_id": None,
                    "phases": "0,,,11,1",
                    "address": "192.0.2.7",
                }
            )
            self.counts[hour, event + 1, _STATES[state], _OUTCOMES[outcome], status, posts] += 1
            self.slots[slot] += 1
            values += (
                (slot, hash_of(kind, value), row_id)
                for kind, value in values_of(row, account, tracking, subscriber)
            )
            words = {
                b"tracking": tracking.encode(),
                b"subscriber": subscriber.encode(),
                b"short_code": short_code(account).encode(),
            }
            contents.append(Document(documents.XML, self.templates[event] % words))
            if posts > 1:
                attempts += (
                    (
                        row_id,
                        attempt,
                        accepted_ms + 400 + (attempt - 1) * 300_000,
                        _OUTCOMES["status" if state == "delivered" else outcome],
                        503 if state == "delivered" else status,
                        elapsed_ms,
                        0,
                        None,
                        None,
                        f"0,,,{elapsed_ms},0",
                        "192.0.2.7",
                    )
                    for attempt in range(1, posts + 1)
                )
        packs = [
            (numbers[first] + 1, len(some), documents.PACKING, documents.pack(some))
            for first in range(0, count, documents.ROWS_MAX)
            for some in [contents[first : first + documents.ROWS_MAX]]
        ]
        return postbacks, values, attempts, packs


def account_name(number: int) -> str:
    """Name of an account by its rank in size, from 0 on."""
    return f"account{number:03d}"


def short_code(account: int) -> str:
    """Short code of an account."""
    return str(80_000 + account)


def template_of(row) -> bytes:
    """Document of an event, with places for what is another's in each."""
    places = _VALUES.get(row.origin) or _VALUES[row.group]
    if "MMSID" in row.tags:
        places = {tag: place for tag, place in places.items() if tag != "TRACKINGID"}
    texts = {"ORIGIN": row.origin, "CODE": row.code} | _TEXTS | places
    tags = ["ORIGIN", "CODE", *(tag.rstrip("?+") for tag in row.tags)]
    elements = "".join(f"<{tag}>{texts[tag]}</{tag}>" for tag in tags if tag in texts)
    return f"<?xml version='1.0' encoding='UTF-8'?>\n<POSTBACK>{elements}</POSTBACK>".encode()


def values_of(row, account: int, tracking: str, subscriber: str):
    """Business values of an event, about two."""
    if row.group == "mt":
        yield ("mms_id", "MMS" + tracking) if "MMSID" in row.tags else ("tracking_id", tracking)
        yield "number", subscriber
    elif row.group == "mo":
        yield "number", subscriber
        yield "number", short_code(account)
    elif row.group == "pass":
        yield "serial_number", "SN" + tracking
    elif row.origin == "EMAIL_SUB":
        yield "email", f"{subscriber}@mail.example"
    else:
        yield "number", subscriber
        yield "sub_id", "SUB" + tracking


def fill(engine: Engine, rows: Rows, *, copies: int = 1) -> None:
    """Write rows into an empty database; indexes are made behind them, as that takes a third of the time.

    Args:
        engine: of the database.
        rows: the rows, which span whole hours.
        copies: times that they are written, each behind the one before: with other ids and business values, of which short
            codes alone stay. The database makes copies in a tenth of the time.
    """
    indexes = [index for table_ in schema.metadata.tables.values() for index in table_.indexes]
    is_ours = [index for index in indexes if index.table is schema.postbacks]
    with engine.begin() as connection:
        for index in is_ours:
            index.drop(connection, checkfirst=True)
        for name, names in rows.names().items():
            connection.execute(text(f"DELETE FROM {name}"))
            _insert(connection, name, names)
        for postbacks, values, attempts, packs in rows.batches():
            columns = [column.name for column in schema.postbacks.columns]
            in_order = itemgetter(*columns)
            _insert(connection, "postbacks", [in_order(row) for row in postbacks])
            _insert(connection, "business_values", sorted(values))
            _insert(connection, "attempts", attempts)
            _insert(connection, "documents", packs)
        _insert(connection, "slots", sorted(rows.slots.items()))
        _insert(connection, "counts", sorted((*key, number) for key, number in rows.counts.items()))
        for number in range(1, copies):
            _copy(connection, rows, number)
        for index in is_ours:
            index.create(connection)
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


def _copy(connection: Connection, rows: Rows, number: int) -> None:
    """Write all rows once more, so many spans later."""
    is_postgres = connection.dialect.name == "postgresql"
    random_id = (
        "'\\x01'::bytea || uuid_send(gen_random_uuid())"
        if is_postgres
        else "CAST(x'01' || randomblob(16) AS BLOB)"
    )
    codes = ", ".join(str(hash_of("number", short_code(account))) for account in range(ACCOUNTS))
    later_ms, later_rows = number * rows.span_ms, number * rows.number
    changes = {
        "row_id": f"row_id + {later_rows}",
        "sequence": f"sequence + {later_rows}",
        "hour": f"hour + {later_ms // HOUR_MS}",
        "slot": f"slot + {later_ms // SLOT_MS}",
        "id": random_id,
        "hash": f"CASE WHEN hash IN ({codes}) THEN hash ELSE hash + {number} END",
    } | {name: f"{name} + {later_ms}" for name in ("accepted_ms", "sent_ms", "ended_ms", "at_ms")}
    for name in ("postbacks", "business_values", "attempts", "documents", "slots", "counts"):
        table_ = schema.metadata.tables[name]
        columns = ", ".join(changes.get(column.name, column.name) for column in table_.columns)
        end_ms = rows.begin_ms + rows.span_ms
        last = {"row_id": rows.number, "slot": first_of_hour(end_ms) - 1, "hour": end_ms // HOUR_MS - 1}
        key = {"slots": "slot", "business_values": "slot", "counts": "hour"}.get(name, "row_id")
        order = ", ".join(column.name for column in table_.primary_key)
        connection.exec_driver_sql(
            f"INSERT INTO {name} SELECT {columns} FROM {name} WHERE {key} <= {last[key]} ORDER BY {order}"
        )


def _insert(connection: Connection, name: str, rows: list[tuple]) -> None:
    """Insert rows that have all columns of a table, in its order."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        with connection.connection.cursor() as cursor, cursor.copy(f"COPY {name} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        return
    marks = ", ".join("?" * len(rows[0]))
    connection.exec_driver_sql(f"INSERT INTO {name} VALUES ({marks})", rows)
