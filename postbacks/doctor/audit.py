"""The audit: every postback against its record, every lane against its state, in pages that block nobody.

An audit takes its time, and postbacks move meanwhile. So what it finds first are *suspicions*: ``recheck`` asks for
each of them alone, in one script that reads all its places in one instant, and keeps the *faults* that still stand.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from postbacks import keys
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
from postbacks.doctor.records import INDEXES, PAGE, fields, indexes, pages, without_record
from postbacks.doctor.scripts import (
    OPEN_MAX,
    Lane,
    Placement,
    count_backlogs,
    count_endpoints,
    count_lanes,
    locate,
)
from postbacks.ledger import states
from postbacks.ledger.record import SCHEMA
from postbacks.urls import redacted

if TYPE_CHECKING:
    from postbacks.queue.scripts import Scripts

#: Postbacks that one audit suspects; the repair of more takes several rounds.
SUSPECTS_MAX: Final = 100_000

#: Checks whose faults the audit finds; ``table.py`` says what each means.
NO_PLACE, TWO_PLACES, WRONG_PLACE, NO_RECORD = "no-place", "two-places", "wrong-place", "no-record"
UNKNOWN_STATE, ORPHANED_CLAIMS, BACKLOG, PACE, ENDPOINTS = (
    "unknown-state", "claims-ownerless", "backlog", "pace", "endpoints",
)  # fmt: skip
LANES_STUCK, LANES_EMPTY, LANES_TWICE = "lanes-stuck", "lanes-empty", "lanes-twice"
#: Those of them about one lane each.
LANE_CHECKS: Final = frozenset({PACE, LANES_STUCK, LANES_EMPTY, LANES_TWICE})
#: All of them.
AUDITED: Final = LANE_CHECKS | {
    NO_PLACE, TWO_PLACES, WRONG_PLACE, NO_RECORD, UNKNOWN_STATE, ORPHANED_CLAIMS, BACKLOG, ENDPOINTS,
}  # fmt: skip

#: Name of the place of what was in flight when its process died.
QUARANTINE: Final = "quarantine"
_INDEX: Final = {
    states.PARKED: "parked",
    states.DELIVERED: "done",
    states.SKIPPED: "done",
    states.CANCELLED: "done",
    states.DEAD: "dead",
}


def _no_faults() -> dict[str, dict[str, str]]:
    return defaultdict(dict)


@dataclass(slots=True)
class Audit:
    """Faults, or suspicions, and counts of one audit.

    Attributes:
        faults: name of a check -> what is at fault (an id, lane, token or account) -> how it stands.
        lanes_of: an id at fault -> the lanes that it was read in.
        records: how many records were read.
        total: how many there are about, by what stands in lanes, claims and indexes.
        scanned: whether all records were read.
        missing: what else there was no time or room for, in words.
        took_s: how long it took.
        schemas: schema version of records -> how many.
        reasons: why postbacks are dead -> how many.
        waiting: ids in lanes.
        sending: ids in claims.
    """

    faults: dict[str, dict[str, str]] = field(default_factory=_no_faults)
    lanes_of: dict[str, tuple[str, ...]] = field(default_factory=dict)
    records: int = 0
    total: int = 0
    scanned: bool = False
    missing: str = ""
    took_s: float = 0.0
    schemas: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    waiting: int = 0
    sending: int = 0

    @property
    def complete(self) -> bool:
        """Tell whether everything was read."""
        return self.scanned and not self.missing

    @property
    def progress(self) -> str:
        """Say how far the audit came."""
        how_many = f"all {self.records:,}" if self.scanned else f"{self.records:,} of about {self.total:,}"
        words = f"{how_many} records in {self.took_s:.0f} s"
        return f"{words}, but not at {self.missing}" if self.scanned and self.missing else words

    @property
    def misplaced(self) -> bool:
        """Tell whether a postback does not stand where it must."""
        return any(self.faults.get(name) for name in (NO_PLACE, TWO_PLACES, WRONG_PLACE, NO_RECORD))


def run(scripts: Scripts, within_s: float) -> Audit:
    """Audit everything, as far as the time allows; returns suspicions."""
    with broker_errors():
        return _Auditor(scripts, within_s).run()


def recheck(scripts: Scripts, suspicions: Audit) -> Audit:
    """Check each suspicion of an audit alone; returns the faults that stand."""
    suspected = suspicions.faults
    audit = replace(suspicions, faults=_no_faults())
    with broker_errors():
        tokens = tokens_of_claims(scripts.client)
        for placement in locate(scripts, suspicions.lanes_of, tokens):
            if name := fault_of(placement):
                audit.faults[name][placement.id] = _standing(placement)
        suspected_lanes = {lane for name in LANE_CHECKS for lane in suspected[name]}
        lanes = count_lanes(scripts, sorted(suspected_lanes), tokens)
        if suspected_lanes and not lanes:
            audit.missing = audit.missing or f"lanes' counts: more than {OPEN_MAX:,} are claimed"
        for lane in lanes:
            for name, words in _faults_of_lane(lane):
                if lane.name in suspected[name]:
                    audit.faults[name][lane.name] = words
        audit.faults[ORPHANED_CLAIMS] = {
            token: words
            for token, words in _orphaned_claims(scripts.client, tokens)
            if token in suspected[ORPHANED_CLAIMS]
        }
        audit.faults[ENDPOINTS] = _endpoints(scripts, tokens)
        if suspected[BACKLOG] and not audit.misplaced:  # else nothing can be counted yet
            backlogs = count_backlogs(scripts, suspected[BACKLOG], tokens)
            audit.faults[BACKLOG] = {
                account: f"says {noted}, {counted} counted"
                for account, (noted, counted) in backlogs.items()
                if noted != counted
            }
    return audit


def fault_of(placement: Placement) -> str | None:
    """Name the check that finds fault with where a postback stands; None if it stands where it must."""
    places, state = placement.places, placement.state
    if not state:
        return NO_RECORD if places else None
    if state not in states.STATES:
        return UNKNOWN_STATE
    if not places:
        return None if placement.remembered else NO_PLACE
    if len(places) > 1:
        return TWO_PLACES
    if placement.in_lane and places[0] == f"lane {placement.lane}":
        return None
    if state == states.SENDING:
        return None if places[0].startswith("claims ") else WRONG_PLACE
    if state == states.WAITING:
        return None if places[0] in {f"lane {placement.lane}", QUARANTINE} else WRONG_PLACE
    return None if places[0] == _INDEX[state] else WRONG_PLACE


def _standing(placement: Placement) -> str:
    record = f"its record says {placement.state}" if placement.state else "no record"
    if placement.state == states.WAITING and placement.lane:
        record += f" in {placement.lane}"
    places = " and ".join(placement.places) or "nowhere"
    return f"{record}, it stands {'in ' if placement.places else ''}{places}"


def _faults_of_lane(lane: Lane) -> Iterator[tuple[str, str]]:
    if lane.claimed != lane.claimed_counted:
        yield PACE, f"says {lane.claimed}, {lane.claimed_counted} in claims"
    elif lane.held != lane.held_counted:
        yield PACE, f"says {lane.held} held, {lane.held_counted} are"
    if lane.waiting and lane.claimable and not lane.trusted and not lane.suspect and not lane.delayed:
        yield LANES_STUCK, f"{lane.waiting} waiting"
    if not lane.waiting and (lane.trusted or lane.suspect):
        yield LANES_EMPTY, "nothing waiting"
    if lane.trusted and lane.suspect:
        yield LANES_TWICE, f"{lane.waiting} waiting"


def _endpoints(scripts: Scripts, tokens: list[str]) -> dict[str, str]:
    return {
        redacted(endpoint): f"says {noted}, {counted} in claims"
        for endpoint, (noted, counted) in count_endpoints(scripts, tokens).items()
    }


def tokens_of_claims(client: Any) -> list[str]:
    """Return the tokens of all claims, those of orphaned ones included."""
    return [text(key).removeprefix(keys.CLAIMS) for key in client.scan_iter(f"{keys.CLAIMS}*", count=PAGE)]


def _orphaned_claims(client: Any, tokens: list[str]) -> Iterator[tuple[str, str]]:
    pipe = client.pipeline(transaction=True)  # a claim writes both in one step: so they are read
    for token in tokens:
        pipe.zscore(keys.CLAIMERS, token)
        pipe.hlen(keys.claims(token))
    replies = pipe.execute()
    for token, lease, size in zip(tokens, replies[::2], replies[1::2], strict=True):
        if size and lease is None:
            yield token, f"{size:,} postback{'' if size == 1 else 's'}"


class _Auditor:
    """Steps of one audit, and what it has read so far."""

    def __init__(self, scripts: Scripts, within_s: float) -> None:
        self._scripts = scripts
        self._client: Any = scripts.client
        self._began_s = time.monotonic()
        self._deadline_s = self._began_s + within_s
        self._lane_of: dict[str, str] = {}  # id -> the lane that it waits in
        self._token_of: dict[str, str] = {}  # id -> the claims that it is in
        self._length_of: dict[str, int] = {}  # lane -> ids in it
        self._claimed_of: Counter[str] = Counter()  # lane -> ids in claims
        self._held_of: Counter[str] = Counter()  # lane -> those of them that are held
        self._lane_states: set[str] = set()  # lanes that have a state
        self._audit = Audit()

    def run(self) -> Audit:
        """Audit everything."""
        audit = self._audit
        tokens = self._read_lanes_and_claims()
        audit.faults[ORPHANED_CLAIMS] = dict(_orphaned_claims(self._client, tokens))
        self._check_lanes()
        audit.faults[ENDPOINTS] = _endpoints(self._scripts, tokens)
        audit.faults[BACKLOG] = dict.fromkeys(self._suspected_backlogs(), "suspected")
        self._check_records()
        self._check_ids()
        audit.took_s = time.monotonic() - self._began_s
        return audit

    def _in_time(self, missing: str) -> bool:
        if time.monotonic() < self._deadline_s:
            return True
        self._audit.missing = self._audit.missing or missing
        return False

    def _read_lanes_and_claims(self) -> list[str]:
        """Read all lanes and claims; returns the tokens of the claims."""
        lanes, tokens, held = [], [], set[str]()
        for key in self._client.scan_iter(f"{keys.PREFIX}[lcp]*", count=PAGE):
            name = text(key)
            if name.startswith(keys.LANE):
                lanes.append(name.removeprefix(keys.LANE))
            elif name.startswith(keys.LANE_STATE):
                self._lane_states.add(name.removeprefix(keys.LANE_STATE))
            elif name.startswith(keys.CLAIMS):
                tokens.append(name.removeprefix(keys.CLAIMS))
        self._count(lanes, tokens)
        for page in pages(lanes):
            self._read_lanes(page)
        for token in tokens:
            for raw_id, value in self._client.hscan_iter(keys.claims(token), count=PAGE):
                postback_id = text(raw_id)
                self._register(postback_id, self._token_of, token)
                if text(value) == "0":
                    held.add(postback_id)
        self._audit.waiting, self._audit.sending = len(self._lane_of), len(self._token_of)
        for page in pages(self._token_of):
            for postback_id, account, group in fields(self._client, page, "account", "group"):
                if account and group:
                    lane = keys.lane_name(account, group)
                    self._claimed_of[lane] += 1
                    self._held_of[lane] += postback_id in held
        return tokens

    def _count(self, lanes: list[str], tokens: list[str]) -> None:
        """Count what there is to audit."""
        pipe = self._client.pipeline(transaction=False)
        for lane in lanes:
            pipe.llen(keys.lane(lane))
        for token in tokens:
            pipe.hlen(keys.claims(token))
        for key in INDEXES.values():
            pipe.zcard(key)
        self._audit.total = sum(pipe.execute())

    def _read_lanes(self, lanes: list[str]) -> None:
        # From the right: what leaves on the left meanwhile hides nothing that stays.
        end = -1
        while lanes and self._in_time("every lane"):
            pipe = self._client.pipeline(transaction=False)
            for lane in lanes:
                pipe.lrange(keys.lane(lane), end - PAGE + 1, end)
            replies = pipe.execute()
            for lane, page in zip(lanes, replies, strict=True):
                self._length_of[lane] = self._length_of.get(lane, 0) + len(page)
                for raw_id in page:
                    self._register(text(raw_id), self._lane_of, lane)
            lanes = [lane for lane, page in zip(lanes, replies, strict=True) if len(page) == PAGE]
            end -= PAGE

    def _register(self, postback_id: str, place_of: dict[str, str], name: str) -> None:
        """Note the lane or the claims that a postback stands in; one that has been read before is suspected."""
        if postback_id in self._lane_of or postback_id in self._token_of:
            lanes = {self._lane_of.get(postback_id, "")} | ({name} if place_of is self._lane_of else set())
            self._suspect(TWO_PLACES, postback_id, *lanes)
        place_of[postback_id] = name

    def _suspect(self, check: str, postback_id: str, *lanes: str) -> None:
        lanes_of = self._audit.lanes_of
        if len(lanes_of) >= SUSPECTS_MAX and postback_id not in lanes_of:
            self._audit.missing = f"more than {SUSPECTS_MAX:,} that seem wrong"
            return
        self._audit.faults[check][postback_id] = "suspected"
        lanes_of[postback_id] = tuple({*lanes_of.get(postback_id, ()), *lanes} - {""})

    # -- lanes ------------------------------------------------------------------------------

    def _check_lanes(self) -> None:
        trusted, suspect = (
            {text(lane) for lane, _ in self._client.zscan_iter(ring, count=PAGE)}
            for ring in (keys.READY_TRUSTED, keys.READY_SUSPECT)
        )
        for page in pages(
            sorted({*self._length_of, *self._lane_states, *self._claimed_of, *trusted, *suspect})
        ):
            pipe = self._client.pipeline(transaction=False)
            for lane in page:
                pipe.hmget(keys.LANE_STATE + lane, "claimed", "held")
            for lane, (claimed, held) in zip(page, pipe.execute(), strict=True):
                counted = Lane(
                    lane, self._length_of.get(lane, 0), int(claimed or 0), self._claimed_of[lane],
                    int(held or 0), self._held_of[lane], claimable=True, trusted=lane in trusted,
                    suspect=lane in suspect, delayed=False,
                )  # fmt: skip
                for check, words in _faults_of_lane(counted):
                    self._audit.faults[check][lane] = words

    # -- accounts ---------------------------------------------------------------------------

    def _suspected_backlogs(self) -> list[str]:
        """Count what each account has waiting, claimed and parked; returns the accounts that note another number."""
        counted: Counter[str] = Counter()
        for size_of in (self._length_of, self._claimed_of):
            for lane, size in size_of.items():
                counted[lane.rpartition("/")[0]] += size
        for index in (keys.PARKED, keys.QUARANTINE):
            for page in pages(text(raw_id) for raw_id, _ in self._client.zscan_iter(index, count=PAGE)):
                counted.update(account for _, account in fields(self._client, page, "account") if account)
                self._in_time("every account's count")
        if self._audit.missing:
            return []
        noted = {text(name): int(count) for name, count in self._client.hscan_iter(keys.BACKLOG, count=PAGE)}
        return [name for name in sorted({*noted, *counted}) if noted.get(name, 0) != counted[name]]

    # -- records ----------------------------------------------------------------------------

    def _check_records(self) -> None:
        """Check of every record that its postback stands in the one place that it names."""
        record_keys = (
            text(key) for key in self._client.scan_iter(f"{keys.RECORD}*", count=PAGE, _type="hash")
        )
        for page in pages(key.removeprefix(keys.RECORD) for key in record_keys):
            rows = fields(self._client, page, "state", "account", "group", "schema", "reason", "in_lane")
            for row, places in zip(rows, indexes(self._client, page), strict=True):
                self._check_record(places, *row)
            self._audit.records += len(page)
            if not self._in_time("every record"):
                return
        self._audit.scanned = True

    def _check_record(self, index_names: tuple[str, ...], postback_id: str, *values: str) -> None:
        state, account, group, schema, reason, in_lane = values
        self._audit.schemas[schema or str(SCHEMA)] += 1
        if state == states.DEAD:
            self._audit.reasons[reason or "(none noted)"] += 1
        lane, token = self._lane_of.get(postback_id, ""), self._token_of.get(postback_id, "")
        places = [f"lane {lane}"] if lane else []
        places += [f"claims {token}"] if token else []
        own_lane = keys.lane_name(account, group) if account and group else ""
        remembered = state == states.CANCELLED and not account
        check = fault_of(
            Placement(
                postback_id, state or "?", own_lane, remembered, 0, (*places, *index_names), bool(in_lane)
            )
        )
        if check:
            self._suspect(check, postback_id, lane)

    def _check_ids(self) -> None:
        """Check of every id in a place that there is a record of it."""
        sources: tuple[Iterator[str], ...] = (
            iter(self._lane_of),
            iter(self._token_of),
            *(
                (text(raw_id) for raw_id, _ in self._client.zscan_iter(key, count=PAGE))
                for key in INDEXES.values()
            ),
        )
        for source in sources:
            for page in pages(source):
                if not self._in_time("every place for ids without a record"):
                    return
                for postback_id in without_record(self._client, page):
                    self._suspect(NO_RECORD, postback_id, self._lane_of.get(postback_id, ""))
