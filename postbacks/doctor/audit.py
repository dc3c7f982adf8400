"""The survey: every postback against its record, every lane against its pace, in pages that block nobody.

A survey takes its time, and postbacks move while it looks. So what it finds are *suspicions*: the second
look asks for each of them alone, in one script that sees all its places in one instant, and keeps those
that stand in both.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from postbacks import keys
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
from postbacks.doctor import scripts as moves
from postbacks.doctor.records import INDEXES, PAGE, fields, indexes, pages, without_record
from postbacks.ledger import states
from postbacks.ledger.record import SCHEMA
from postbacks.urls import redacted

if TYPE_CHECKING:
    from postbacks.doctor.scripts import Lane, Place
    from postbacks.queue.scripts import Scripts

#: Suspicions that one survey keeps; the repair of more takes several rounds.
SUSPICIONS: Final = 100_000

#: Faults that the survey looks for; ``table.py`` says what each means.
NO_PLACE, TWO_PLACES, WRONG_PLACE, NO_RECORD = "no-place", "two-places", "wrong-place", "no-record"
UNKNOWN_STATE, OWNERLESS, BACKLOG, PACE, ENDPOINTS = (
    "unknown-state", "claims-ownerless", "backlog", "pace", "endpoints",
)  # fmt: skip
LANES_STUCK, LANES_EMPTY, LANES_TWICE = "lanes-stuck", "lanes-empty", "lanes-twice"
#: All of them.
FAULTS: Final = frozenset(
    {
        NO_PLACE, TWO_PLACES, WRONG_PLACE, NO_RECORD, UNKNOWN_STATE, OWNERLESS, BACKLOG, PACE, ENDPOINTS,
        LANES_STUCK, LANES_EMPTY, LANES_TWICE,
    }
)  # fmt: skip

#: The place of what was in flight when its process died, besides its lane.
QUARANTINE: Final = "quarantine"
_INDEX: Final = {
    states.PARKED: "parked",
    states.DELIVERED: "done",
    states.SKIPPED: "done",
    states.CANCELLED: "done",
    states.DEAD: "dead",
}
_OPEN: Final = frozenset({states.WAITING, states.SENDING, states.PARKED})


@dataclass(slots=True)
class Audit:
    """What one survey found.

    Attributes:
        faults: name of a check -> what is at fault (an id, lane, token or account) -> how it stands.
        seen: an id at fault -> the lanes that it was seen in.
        backlog: accounts whose count seemed to be off.
        records: how many records were looked at.
        total: how many there were about, by what stands in lanes, claims and indexes.
        scanned: whether all records were looked at.
        missing: what else there was no time or room for, in words.
        took_s: how long it took.
        schemas: schema version of records -> how many.
        reasons: why postbacks are dead -> how many.
        oldest: group -> the lane whose first postback was made the longest ago, and when.
        waiting: ids in lanes.
        sending: ids in claims.
    """

    faults: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    seen: dict[str, tuple[str, ...]] = field(default_factory=dict)
    backlog: list[str] = field(default_factory=list)
    records: int = 0
    total: int = 0
    scanned: bool = False
    missing: str = ""
    took_s: float = 0.0
    schemas: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    oldest: dict[str, tuple[str, int]] = field(default_factory=dict)
    waiting: int = 0
    sending: int = 0

    @property
    def complete(self) -> bool:
        """Whether everything was looked at."""
        return self.scanned and not self.missing

    @property
    def progress(self) -> str:
        """Say how far it looked."""
        how_many = f"all {self.records:,}" if self.scanned else f"{self.records:,} of about {self.total:,}"
        words = f"{how_many} records in {self.took_s:.0f} s"
        return f"{words}, but not at {self.missing}" if self.scanned and self.missing else words

    @property
    def misplaced(self) -> bool:
        """Whether a postback does not stand where it must."""
        return any(self.faults.get(name) for name in (NO_PLACE, TWO_PLACES, WRONG_PLACE, NO_RECORD))


def survey(scripts: Scripts, within_s: float) -> Audit:
    """Look at everything, as far as the time allows."""
    with broker_errors():
        return _Surveyor(scripts, within_s).run()


def recheck(scripts: Scripts, first: Audit) -> Audit:
    """Look at each suspicion of a survey alone; what does not stand any more is gone."""
    again = Audit(
        records=first.records, total=first.total, scanned=first.scanned, missing=first.missing,
        took_s=first.took_s, schemas=first.schemas, reasons=first.reasons,
        oldest=first.oldest, waiting=first.waiting, sending=first.sending, seen=first.seen,
    )  # fmt: skip
    with broker_errors():
        tokens = tokens_of_claims(scripts.client)
        for place in moves.places(scripts, first.seen, tokens):
            name = fault_of(place)
            if name:
                again.faults[name][place.id] = _standing(place)
        lanes = {
            lane for name in (PACE, LANES_STUCK, LANES_EMPTY, LANES_TWICE) for lane in first.faults[name]
        }
        standing = moves.lanes(scripts, sorted(lanes), tokens)
        if lanes and not standing:
            again.missing = again.missing or f"lanes' counts: more than {moves.OPEN_MAX:,} are claimed"
        for lane in standing:
            for name, words in _faults_of(lane):
                if lane.name in first.faults[name]:
                    again.faults[name][lane.name] = words
        again.faults[OWNERLESS] = {
            token: words
            for token, words in _ownerless(scripts.client, tokens)
            if token in first.faults[OWNERLESS]
        }
        again.faults[ENDPOINTS] = _endpoints(scripts, tokens)
        if first.backlog and not again.misplaced:  # else nothing can be counted yet
            found = moves.backlogs(scripts, first.backlog, tokens)
            again.faults[BACKLOG] = {
                name: f"says {count}, {counted} counted"
                for name, (count, counted) in found.items()
                if count != counted
            }
    return again


def fault_of(place: Place) -> str | None:
    """The check that finds fault with where a postback stands."""
    where, state = place.places, place.state
    if not state:
        return NO_RECORD if where else None
    if state not in states.STATES:
        return UNKNOWN_STATE
    if not where:
        return None if place.remembered else NO_PLACE
    if len(where) > 1:
        return TWO_PLACES
    if place.in_lane and where[0] == f"lane {place.lane}":
        return None
    if state == states.SENDING:
        return None if where[0].startswith("claims ") else WRONG_PLACE
    if state == states.WAITING:
        return None if where[0] in {f"lane {place.lane}", QUARANTINE} else WRONG_PLACE
    return None if where[0] == _INDEX[state] else WRONG_PLACE


def _standing(place: Place) -> str:
    said = f"its record says {place.state}" if place.state else "no record"
    if place.state == states.WAITING and place.lane:
        said += f" in {place.lane}"
    where = " and ".join(place.places) or "nowhere"
    return f"{said}, it stands {'in ' if place.places else ''}{where}"


def _faults_of(lane: Lane) -> Iterator[tuple[str, str]]:
    if lane.claimed != lane.counted:
        yield PACE, f"says {lane.claimed}, {lane.counted} in claims"
    elif lane.held != lane.held_counted:
        yield PACE, f"says {lane.held} held, {lane.held_counted} are"
    if lane.waiting and lane.claimable and not lane.trusted and not lane.suspect and not lane.aside:
        yield LANES_STUCK, f"{lane.waiting} waiting"
    if not lane.waiting and (lane.trusted or lane.suspect):
        yield LANES_EMPTY, "nothing waiting"
    if lane.trusted and lane.suspect:
        yield LANES_TWICE, f"{lane.waiting} waiting"


def _endpoints(scripts: Scripts, tokens: list[str]) -> dict[str, str]:
    return {
        redacted(name): f"says {count}, {counted} in claims"
        for name, (count, counted) in moves.endpoints(scripts, tokens).items()
    }


def tokens_of_claims(client: Any) -> list[str]:
    """Tokens of all claims, owned or not."""
    return [text(key).removeprefix(keys.CLAIMS) for key in client.scan_iter(f"{keys.CLAIMS}*", count=PAGE)]


def _ownerless(client: Any, tokens: list[str]) -> Iterator[tuple[str, str]]:
    pipe = client.pipeline(transaction=True)  # a claim writes both in one step: so they are read
    for token in tokens:
        pipe.zscore(keys.CLAIMERS, token)
        pipe.hlen(keys.claims(token))
    replies = pipe.execute()
    for token, score, size in zip(tokens, replies[::2], replies[1::2], strict=True):
        if size and score is None:
            yield token, f"{size:,} postback{'' if size == 1 else 's'}"


class _Surveyor:
    """One survey, in steps."""

    def __init__(self, scripts: Scripts, within_s: float) -> None:
        self._scripts = scripts
        self._client: Any = scripts.client
        self._began_s = time.monotonic()
        self._deadline_s = self._began_s + within_s
        self._lane_of: dict[str, str] = {}  # id -> the lane that it waits in
        self._lengths: dict[str, int] = {}
        self._token_of: dict[str, str] = {}  # id -> the claims that it is in
        self._claims_of: Counter[str] = Counter()  # lane -> ids in claims
        self._held_of: Counter[str] = Counter()  # lane -> those of them that are held
        self._paces: set[str] = set()
        self.found = Audit()

    def run(self) -> Audit:
        """Look at everything."""
        tokens = self._read_lanes_and_claims()
        self.found.faults[OWNERLESS] = dict(_ownerless(self._client, tokens))
        self._look_at_lanes()
        self.found.faults[ENDPOINTS] = _endpoints(self._scripts, tokens)
        self._count_backlogs()
        self.found.faults[BACKLOG] = dict.fromkeys(self.found.backlog, "suspected")
        self._look_at_records()
        self._look_for_records()
        self.found.took_s = time.monotonic() - self._began_s
        return self.found

    def _in_time(self, missing: str) -> bool:
        if time.monotonic() < self._deadline_s:
            return True
        self.found.missing = self.found.missing or missing
        return False

    def _read_lanes_and_claims(self) -> list[str]:
        """Read all lanes and claims; returns the tokens of the claims."""
        lanes, tokens, held = [], [], set[str]()
        for key in self._client.scan_iter(f"{keys.PREFIX}[lcp]*", count=PAGE):
            name = text(key)
            if name.startswith(keys.LANE):
                lanes.append(name.removeprefix(keys.LANE))
            elif name.startswith(keys.LANE_STATE):
                self._paces.add(name.removeprefix(keys.LANE_STATE))
            elif name.startswith(keys.CLAIMS):
                tokens.append(name.removeprefix(keys.CLAIMS))
        self._count(lanes, tokens)
        for some in pages(lanes):
            self._read_lanes(some)
        for token in tokens:
            for one, how in self._client.hscan_iter(keys.claims(token), count=PAGE):
                self._see(text(one), self._token_of, token)
                if text(how) == "0":
                    held.add(text(one))
        self.found.waiting, self.found.sending = len(self._lane_of), len(self._token_of)
        for some in pages(self._token_of):
            for one, account, group in fields(self._client, some, "account", "group"):
                if account and group:
                    lane = keys.lane_name(account, group)
                    self._claims_of[lane] += 1
                    self._held_of[lane] += one in held
        return tokens

    def _count(self, lanes: list[str], tokens: list[str]) -> None:
        """Count what there is to look at."""
        pipe = self._client.pipeline(transaction=False)
        for lane in lanes:
            pipe.llen(keys.lane(lane))
        for token in tokens:
            pipe.hlen(keys.claims(token))
        for key in INDEXES.values():
            pipe.zcard(key)
        self.found.total = sum(pipe.execute())

    def _read_lanes(self, lanes: list[str]) -> None:
        # From the right: what leaves on the left meanwhile hides nothing that stays.
        end = -1
        while lanes and self._in_time("every lane"):
            pipe = self._client.pipeline(transaction=False)
            for lane in lanes:
                pipe.lrange(keys.lane(lane), end - PAGE + 1, end)
            pages = pipe.execute()
            for lane, page in zip(lanes, pages, strict=True):
                self._lengths[lane] = self._lengths.get(lane, 0) + len(page)
                for one in page:
                    self._see(text(one), self._lane_of, lane)
            lanes = [lane for lane, page in zip(lanes, pages, strict=True) if len(page) == PAGE]
            end -= PAGE

    def _see(self, one: str, where: dict[str, str], name: str) -> None:
        if one in self._lane_of or one in self._token_of:
            lanes = {self._lane_of.get(one, "")} | ({name} if where is self._lane_of else set())
            self._suspect(TWO_PLACES, one, *lanes)
        where[one] = name

    def _suspect(self, name: str, one: str, *lanes: str) -> None:
        if len(self.found.seen) >= SUSPICIONS and one not in self.found.seen:
            self.found.missing = f"more than {SUSPICIONS:,} that seem wrong"
            return
        self.found.faults[name][one] = "suspected"
        self.found.seen[one] = tuple({*self.found.seen.get(one, ()), *lanes} - {""})

    # -- lanes ------------------------------------------------------------------------------

    def _look_at_lanes(self) -> None:
        trusted, suspect = (
            {text(lane) for lane, _ in self._client.zscan_iter(ring, count=PAGE)}
            for ring in (keys.READY_TRUSTED, keys.READY_SUSPECT)
        )
        every = sorted({*self._lengths, *self._paces, *self._claims_of, *trusted, *suspect})
        for some in pages(every):
            pipe = self._client.pipeline(transaction=False)
            for lane in some:
                pipe.hmget(keys.LANE_STATE + lane, "claimed", "held")
                pipe.lindex(keys.lane(lane), 0)
            replies = pipe.execute()
            heads: dict[str, str] = {}
            for lane, (claimed, held), head in zip(some, replies[::2], replies[1::2], strict=True):
                if head:
                    heads[text(head)] = lane
                seen = moves.Lane(
                    lane, self._lengths.get(lane, 0), int(claimed or 0), self._claims_of[lane],
                    int(held or 0), self._held_of[lane], claimable=True, trusted=lane in trusted,
                    suspect=lane in suspect, aside=False,
                )  # fmt: skip
                for name, words in _faults_of(seen):
                    self.found.faults[name][lane] = words
            self._note_oldest(heads)

    def _note_oldest(self, heads: Mapping[str, str]) -> None:
        for one, created in fields(self._client, list(heads), "created_ms"):
            group = heads[one].rpartition("/")[2]
            if created and int(created) < self.found.oldest.get(group, ("", 1 << 62))[1]:
                self.found.oldest[group] = (heads[one], int(created))

    # -- accounts ---------------------------------------------------------------------------

    def _count_backlogs(self) -> None:
        """Count what each account has waiting, claimed and parked, and compare it with its count."""
        counted: Counter[str] = Counter()
        for size_of in (self._lengths, self._claims_of):
            for lane, size in size_of.items():
                counted[lane.rpartition("/")[0]] += size
        for place in (keys.PARKED, keys.QUARANTINE):
            for some in pages(text(one) for one, _ in self._client.zscan_iter(place, count=PAGE)):
                counted.update(account for _, account in fields(self._client, some, "account") if account)
                self._in_time("every account's count")
        if self.found.missing:
            return
        counts = {text(name): int(count) for name, count in self._client.hscan_iter(keys.BACKLOG, count=PAGE)}
        every = sorted({*counts, *counted})
        self.found.backlog = [name for name in every if counts.get(name, 0) != counted[name]]

    # -- records ----------------------------------------------------------------------------

    def _look_at_records(self) -> None:
        """Every record: does its postback stand in the one place that it names?"""
        found = (text(key) for key in self._client.scan_iter(f"{keys.RECORD}*", count=PAGE, _type="hash"))
        for some in pages(key.removeprefix(keys.RECORD) for key in found):
            rows = fields(self._client, some, "state", "account", "group", "schema", "reason", "in_lane")
            for row, places in zip(rows, indexes(self._client, some), strict=True):
                self._look_at_record(places, *row)
            self.found.records += len(some)
            if not self._in_time("every record"):
                return
        self.found.scanned = True

    def _look_at_record(self, indexes: tuple[str, ...], one: str, *fields: str) -> None:
        state, account, group, schema, reason, in_lane = fields
        self.found.schemas[schema or str(SCHEMA)] += 1
        if state == states.DEAD:
            self.found.reasons[reason or "(none noted)"] += 1
        lane, token = self._lane_of.get(one, ""), self._token_of.get(one, "")
        where = [f"lane {lane}"] if lane else []
        where += [f"claims {token}"] if token else []
        own = keys.lane_name(account, group) if account and group else ""
        remembered = state == states.CANCELLED and not account
        name = fault_of(moves.Place(one, state or "?", own, remembered, 0, (*where, *indexes), bool(in_lane)))
        if name:
            self._suspect(name, one, lane)

    def _look_for_records(self) -> None:
        """Every id in a place: is there a record of it?"""
        sources: tuple[Iterator[str], ...] = (
            iter(self._lane_of),
            iter(self._token_of),
            *(
                (text(one) for one, _ in self._client.zscan_iter(key, count=PAGE))
                for key in (keys.QUARANTINE, keys.PARKED, keys.DEAD, keys.DONE)
            ),
        )
        for source in sources:
            for some in pages(source):
                if not self._in_time("every place for ids without a record"):
                    return
                for one in without_record(self._client, some):
                    self._suspect(NO_RECORD, one, self._lane_of.get(one, ""))
