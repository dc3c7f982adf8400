"""Search, count and why_empty on both databases, held against a plain filter in Python over random postbacks and queries."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from records import make_record
from sqlalchemy import text

from postbacks.broker.client import client_for
from postbacks.catalogue import EVENTS
from postbacks.errors import InvalidQuery
from postbacks.history import Query, count, find, paths, schema, search, why_empty
from postbacks.history.filters import VALUE_FILTERS
from postbacks.history.schema import HOUR_MS, SLOW_MS
from postbacks.history.strip import PARTS_MAX, Strip, strip
from postbacks.history.values import KINDS
from postbacks.history.writer import Writer
from postbacks.ledger.record import Attempt
from postbacks.privacy.spelling import canonical

#: No broker answers there: what history has is what counts.
AWAY = client_for("redis://127.0.0.1:1/0", 1.0)
BEGIN_MS = 1_780_000_000_000
#: Times around the ends of hours, within five hours, a gap of a day, and few enough to be met twice.
TIMES = [
    BEGIN_MS // HOUR_MS * HOUR_MS + hour * HOUR_MS + ms
    for hour in (0, 1, 2, 5, 29)
    for ms in (0, 1, 1_800_000, 3_599_999)
]
CODES = [("SMS_MT", "N202"), ("MMS_MT", "N202"), ("SMS_MT", "E202"), ("SMS_MO", "N211"), ("SUB", "N301")]
HOSTS = ["one.example", "two.example", "shared.example"]
VALUES = {
    "tracking_id": ["t1", "T1", "t2"],
    "mms_id": ["m1"],
    "number": ["+1 (555) 231-0137", "5552310137", "86717", "15550000001"],
    "email": ["Ann@mail.example", "bob@mail.example"],
    "sub_id": ["s1"],
    "serial_number": ["n1"],
}


@dataclass(frozen=True)
class Ending:
    """Ways of a postback: its state, its reason, and what its POSTs came to: outcome, status and duration."""

    state: str
    reason: str = ""
    posts: tuple[tuple[str, int | None, int], ...] = ()
    begun: int | None = None


def endings() -> st.SearchStrategy[Ending]:
    """Draw an ending as the ledger writes it."""
    slow = st.sampled_from([0, 900, 999, 1000, 3000])
    delivered = slow.map(lambda ms: ("delivered", 200, ms))
    failed = st.tuples(st.just("status"), st.sampled_from([404, 503]), slow) | st.tuples(
        st.sampled_from(["connect_timeout", "dns"]), st.none(), slow
    )
    some_failed = st.lists(failed, min_size=1, max_size=3)
    at_first = delivered.map(lambda post: Ending("delivered", posts=(post,)))
    return st.one_of(
        *([at_first] * 5),
        st.tuples(some_failed, delivered).map(lambda way: Ending("delivered", posts=(*way[0], way[1]))),
        some_failed.map(lambda posts: Ending("dead", posts[-1][0], tuple(posts))),
        st.sampled_from(["no_url", "backlog_full"]).map(lambda reason: Ending("dead", reason)),
        st.just(Ending("skipped", "origin_off")),
        some_failed.map(lambda posts: Ending("cancelled", "revoked", tuple(posts))),
        some_failed.map(lambda posts: Ending("parked", posts=tuple(posts))),
        st.just(Ending("parked", "unreachable")),
        st.just(Ending("waiting")),
        st.just(Ending("sending", begun=1)),
        some_failed.map(lambda posts: Ending("forgotten", posts=tuple(posts))),
    )


@dataclass(frozen=True)
class Sent:
    """Postback as it is written, and as the plain filter knows it."""

    id: str
    account: str
    event: tuple[str, str]
    host: str
    ending: Ending
    accepted_ms: int
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    is_opt_out: bool = False

    def record(self) -> tuple[str, dict[bytes, bytes]]:
        """Return its record."""
        origin, code = self.event
        attempts = tuple(
            Attempt(number, self.accepted_ms + number, outcome, status, ms)
            for number, (outcome, status, ms) in enumerate(self.ending.posts, start=1)
        )
        tags = [
            (KINDS[kind][min(place, len(KINDS[kind]) - 1)], value)
            for kind, its_values in self.values.items()
            for place, value in enumerate(its_values)
        ]
        is_ended = self.ending.state in {"delivered", "dead", "skipped", "cancelled"}
        return make_record(
            self.id,
            state="parked" if self.ending.state == "forgotten" else self.ending.state,
            account=self.account,
            group=EVENTS[self.event].group,
            origin=origin,
            code=code,
            url=f"https://{self.host}/postbacks",
            document="".join(f"<{tag}>{value}</{tag}>" for tag, value in tags).encode(),
            accepted_ms=self.accepted_ms,
            ended_ms=self.accepted_ms + 5000 if is_ended else None,
            attempts=attempts,
            begun=self.ending.begun,
            reason=self.ending.reason or None,
            opt_out=1 if self.is_opt_out else None,
        )

    def passes(self, query: Query) -> bool:
        """Filter plainly."""
        latest = self.ending.posts[-1] if self.ending.posts else ("", None, 0)
        statuses = [status for _, status, _ in self.ending.posts if status]
        origin, code = self.event
        exact = {
            "account": self.account,
            "group": EVENTS[self.event].group,
            "origin": origin,
            "code": code,
            "state": "waiting" if self.ending.state == "sending" else self.ending.state,
            "outcome": latest[0],
            "status": statuses[-1] if statuses else None,
            "reason": self.ending.reason,
            "attempts": len(self.ending.posts) if self.ending.begun is None else self.ending.begun,
        }
        return (
            all(getattr(query, name) in {None, value} for name, value in exact.items())
            and (self.is_opt_out or not query.opt_outs)
            and (self.ending.state != "delivered" or not query.undelivered)
            and (query.host is None or query.host.lower() == self.host)
            and (query.slower_than_ms is None or latest[2] > query.slower_than_ms)
            and (query.since_ms is None or self.accepted_ms >= query.since_ms)
            and (query.until_ms is None or self.accepted_ms < query.until_ms)
            and all(
                getattr(query, kind) is None
                or canonical(kind, getattr(query, kind))
                in {canonical(kind, value) for value in self.values.get(kind, ())}
                for kind in VALUE_FILTERS
            )
        )


postbacks = st.builds(
    Sent,
    id=st.uuids(version=4).map(str) | st.uuids().map(lambda uuid: uuid.hex),
    account=st.sampled_from(["acme", "globex", "initech"]),
    event=st.sampled_from(CODES),
    host=st.sampled_from(HOSTS),
    ending=endings(),
    accepted_ms=st.sampled_from(TIMES),
    values=st.fixed_dictionaries(
        {},
        optional={
            kind: st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True).map(tuple)
            for kind, values in VALUES.items()
        },
    ),
    is_opt_out=st.booleans(),
)

#: What a query may ask for, with a value each that nothing has.
ASKED = {
    "account": ["acme", "globex", "nobody"],
    "group": ["mt", "mo", "pass"],
    "origin": ["SMS_MT", "SMS_MO", "EMAIL_SUB"],
    "code": ["N202", "N211", "E202", "N303"],
    "state": ["delivered", "dead", "skipped", "cancelled", "waiting", "parked", "sending", "forgotten"],
    "outcome": ["delivered", "status", "connect_timeout", "tls"],
    "status": [200, 404, 503, 418],
    "host": ["ONE.example", "shared.example", "none.example"],
    "reason": ["status", "no_url", "revoked", "unreachable"],
    "attempts": [0, 1, 2, 4],
    "slower_than_ms": [0, 5, 899, 999, 1000, 2000],
    "since_ms": [TIMES[1], TIMES[6], TIMES[-4]],
    "opt_outs": [True],
    "undelivered": [True],
    "until_ms": [TIMES[2], TIMES[7], TIMES[12], TIMES[-1]],
    **{
        kind: [*values, {"number": "15559999999", "email": "x@y.example"}.get(kind, "none")]
        for kind, values in VALUES.items()
    },
}


def asks_for(postback: Sent, name: str) -> list:
    """Values of a filter that a postback passes."""
    origin, code = postback.event
    posts = postback.ending.posts
    of_it = {
        "account": [postback.account],
        "group": [EVENTS[postback.event].group],
        "origin": [origin],
        "code": [code],
        "state": [postback.ending.state],
        "outcome": [posts[-1][0]] if posts else [],
        "status": [posts[-1][1]] if posts and posts[-1][1] else [],
        "host": [postback.host],
        "reason": [postback.ending.reason] if postback.ending.reason else [],
        "attempts": [len(posts)],
        "opt_outs": [True] if postback.is_opt_out else [],
        "undelivered": [True] if postback.ending.state != "delivered" else [],
        "slower_than_ms": [posts[-1][2] - 1] if posts and posts[-1][2] else [],
        "since_ms": [postback.accepted_ms],
        "until_ms": [postback.accepted_ms + 1],
    }
    return of_it[name] if name in of_it else list(postback.values.get(name, ()))


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Sent], list[Query], int]:
    """Draw postbacks, and queries of up to four filters; most ask for what one of the postbacks has.

    The last number says how many postbacks a value has that is common, and looked for on other paths.
    """
    sent = draw(st.lists(postbacks, max_size=40, unique_by=lambda postback: postback.id))
    asked = []
    for _ in range(draw(st.integers(8, 14))):
        names = draw(st.lists(st.sampled_from(sorted(ASKED)), max_size=4, unique=True))
        target = draw(st.sampled_from(sent)) if sent else None
        values = {}
        for name in names:
            of_it = asks_for(target, name) if target is not None else []
            if of_it and draw(st.integers(0, 4)):
                values[name] = draw(st.sampled_from(of_it))
            elif not of_it or draw(st.booleans()):
                values[name] = draw(st.sampled_from(ASKED[name]))
        asked.append(Query(**values))
    return sent, asked, draw(st.sampled_from([1, 1000]))


def write(engine, sent: list[Sent]) -> None:
    """Empty the history, and write postbacks as a recorder does, some of them in two steps."""
    with engine.begin() as connection:
        for table in schema.metadata.tables.values():
            if table.name not in {"facts", "states", "outcomes"}:
                connection.execute(text(f"DELETE FROM {table.name}"))
    writer = Writer(engine, slot_rows=2)
    writer.take_lease()
    before_its_end = [replace(postback, ending=Ending("waiting")).record() for postback in sent[::3]]
    writer.write(before_its_end)
    writer.write([postback.record() for postback in sent], recorded_id="1-1", recorded_ms=TIMES[-1])
    writer.write([(postback.id, {}) for postback in sent if postback.ending.state == "forgotten"])


def walk(engine, query: Query) -> list[str]:
    """Read all pages of a query, three postbacks each; check their order."""
    found, query = [], replace(query, limit=3)
    for _ in range(20):  # more than there are
        page = search(query, client=AWAY, engine=engine)
        found += page.postbacks
        assert len(page.postbacks) == 3 or not page.next
        if not page.next:
            break
        query = replace(query, cursor=page.next)
    places = [(postback.accepted_ms, postback.row_id) for postback in found]
    assert all(earlier > later for earlier, later in pairwise(places))
    return [postback.id for postback in found]


def blamed(sent: list[Sent], query: Query) -> list[tuple[str, int]]:
    """Say plainly which filter leaves none: the nearest miss first, or the first that leaves none in the order of trust."""
    order = [
        "account",
        "time",
        *reversed(VALUE_FILTERS),
        "host",
        "group",
        "origin",
        "state",
        "code",
        "reason",
    ]
    order += ["opt_outs", "undelivered", "outcome", "status", "attempts", "slower_than_ms"]
    fields = {name: ("since_ms", "until_ms") if name == "time" else (name,) for name in order}
    given_names = [
        name
        for name in order
        if any(getattr(query, part) is not getattr(Query(), part) for part in fields[name])
    ]

    def without(names: list[str]) -> int:
        others = replace(query, **dict.fromkeys(part for name in names for part in fields[name]))
        return sum(postback.passes(others) for postback in sent)

    misses = [(name, number) for name in given_names if (number := without([name]))]
    if misses:
        return sorted(misses, key=lambda miss: miss[1])
    for place, name in enumerate(given_names):
        if not without(given_names[place + 1 :]):
            return [(name, without(given_names[place:]))]
    return []


@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=12,
    phases=[Phase.explicit, Phase.generate],  # to shrink a failure would take minutes
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.data_too_large,
    ],
)
@given(case=histories())
def test_search_count_strip_and_why_empty_say_what_a_plain_filter_says(database, monkeypatch, case):
    sent, asked, common = case
    monkeypatch.setattr(paths, "_COMMON", common)
    write(database, sent)
    for query in asked:
        plain = [postback for postback in sent if postback.passes(query)]
        try:
            number = count(query, client=AWAY, engine=database).postbacks
        except InvalidQuery:
            assert plain == [], query  # what is refused as impossible is so
            continue
        filters = {name: value for name, value in asdict(query).items() if value not in {None, ""}}
        assert number == len(plain), filters
        check_strip(strip(query, client=AWAY, engine=database), plain)
        newest_first = sorted(plain, key=lambda postback: -postback.accepted_ms)
        found = walk(database, query)
        assert sorted(found) == sorted(postback.id for postback in plain), filters
        times = {postback.id: postback.accepted_ms for postback in sent}
        assert [times[postback_id] for postback_id in found] == [p.accepted_ms for p in newest_first], filters
        if not plain:
            exclusions = why_empty(query, client=AWAY, engine=database)
            said = [(exclusion.filter, exclusion.postbacks) for exclusion in exclusions]
            assert sorted(said) == sorted(blamed(sent, query)), filters
            assert [number for _, number in said] == sorted(number for _, number in said), filters
    for postback in sent[:3]:
        (found_by_id,) = find(postback.id, client=AWAY, engine=database)
        assert (found_by_id.account, found_by_id.accepted_ms) == (postback.account, postback.accepted_ms)


def check_strip(drawn: Strip, plain: list[Sent]) -> None:
    """Check that a strip has each postback in the part in which it was accepted, and no gap."""
    assert drawn.postbacks == len(plain)
    assert len(drawn.parts) <= PARTS_MAX
    assert all(earlier.until_ms == later.since_ms for earlier, later in pairwise(drawn.parts))
    for part in drawn.parts:
        of_it = [p for p in plain if part.since_ms <= p.accepted_ms < part.until_ms]
        assert part.total == len(of_it)
    assert sum(part.total for part in drawn.parts) == len(plain)


def delivered_in(ms: int) -> Ending:
    """End a postback by its first POST."""
    return Ending("delivered", posts=(("delivered", 200, ms),))


@pytest.mark.parametrize(("slower_than_ms", "number"), [(998, 3), (999, 2), (1000, 1), (1001, 0)])
def test_where_slowness_begins_no_postback_is_lost(database, slower_than_ms, number):
    """From there on a search reads the index of what is troubled, below it that of all."""
    write(database, [sent_with(delivered_in(SLOW_MS + ms)) for ms in (-1, 0, 1)])
    query = Query(slower_than_ms=slower_than_ms)
    assert count(query, client=AWAY, engine=database).postbacks == number
    assert len(walk(database, query)) == number


def test_a_common_value_is_looked_for_among_the_troubled(database, monkeypatch):
    monkeypatch.setattr(paths, "_COMMON", 1)
    dead = Ending("dead", "no_url")
    short_code, other = {"number": ("86717",)}, {"number": ("86718",)}
    sent = [sent_with(dead, short_code), sent_with(dead, other), sent_with(delivered_in(5), short_code)]
    write(database, sent)
    query = Query(number="86717", state="dead")
    assert walk(database, query) == [sent[0].id]
    assert count(query, client=AWAY, engine=database).postbacks == 1


def sent_with(ending: Ending, values: dict[str, tuple[str, ...]] | None = None) -> Sent:
    """Make a postback of an ending."""
    return Sent(str(uuid.uuid4()), "acme", CODES[0], HOSTS[0], ending, BEGIN_MS, values or {})
