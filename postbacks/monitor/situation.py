"""Situation of one postback: what the broker says of it, its lane, its account and its endpoint, in one instant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks import keys
from postbacks.broker import memory
from postbacks.broker.client import text
from postbacks.broker.clock import to_ms
from postbacks.broker.errors import broker_errors
from postbacks.broker.fitness import why_refused
from postbacks.ledger import states
from postbacks.ledger.ledger import Claim, Ledger
from postbacks.ledger.record import Record
from postbacks.monitor.presence import Presence, find_present
from postbacks.queue.pacing import Pacing
from postbacks.queue.pauses import Pause, parse
from postbacks.queue.routes import since_and_state
from postbacks.queue.slow_start import EndpointStart

if TYPE_CHECKING:
    import redis

#: Ids of its lane that are looked at from each end for the postback's position.
POSITION_MAX: Final = 10_000
#: Lanes of a ring that are looked at for its lane's turn.
TURN_MAX: Final = 1_000
#: Messages of each list of Celery's queue that are looked at from each end.
MESSAGES_MAX: Final = 250
#: Readings at most, until the postback has not moved while it was read.
READINGS_MAX: Final = 5

#: Rings that lanes take turns in: who answers in time, and who is new, slow or failing.
RINGS: Final = {"trusted": keys.READY_TRUSTED, "suspect": keys.READY_SUSPECT}
#: Score of what is tried alone in the quarantine (``queue/_shared.lua``).
ALONE: Final = 2


class System(NamedTuple):
    """State of what moves every postback.

    Attributes:
        refusal: why the broker would refuse a postback; empty where it would take it.
        memory_share: share of the broker's memory that is used.
        last_tick_ms: when a tick last finished; None if none ever has.
        emptied_ms: when a tick last found nothing to take in.
        workers: those that give signs of life.
        beats: the same.
        loops: delivering loops whose lease stands.
    """

    refusal: str
    memory_share: float
    last_tick_ms: int | None = None
    emptied_ms: int | None = None
    workers: Presence = Presence()
    beats: Presence = Presence()
    loops: int = 0


class LaneState(NamedTuple):
    """State of a lane, as all scripts read it (``lane_state_of`` in ``queue/_shared.lua``).

    Attributes:
        waiting: postbacks in the lane.
        claimed: ids of it in claims.
        held: of them those whose POST has not begun.
        limit: POSTs that it may have open.
        failing: whether its last outcome was a failure.
    """

    waiting: int
    claimed: int
    held: int
    limit: int
    failing: bool

    @property
    def open(self) -> int:
        """Number of POSTs that may be open."""
        return max(0, self.claimed - self.held)

    @property
    def claimable(self) -> bool:
        """True where a loop may claim from the lane, as ``is_claimable`` in ``queue/_shared.lua`` says."""
        return self.claimed == 0 if self.failing else self.claimed < self.limit


class Lane(NamedTuple):
    """Lane of the postback.

    Attributes:
        state: its state.
        ahead: postbacks before ours; None where ours stands deeper than was looked, or not in it.
        failing_ms: since when every attempt has failed.
        ring: ``trusted`` or ``suspect``, in which it has its turn; empty where it has none.
        turn: lanes of the ring before it; None where it stands further back than was looked.
        delayed_until_ms: until when its account's rate or a lack of room delays it.
    """

    state: LaneState
    ahead: int | None
    failing_ms: int | None
    ring: str
    turn: int | None
    delayed_until_ms: int | None


class Account(NamedTuple):
    """Account of the postback.

    Attributes:
        lane_states: group -> state of the lane, of all its lanes.
        state: of its row (``queue/routes.py``); empty where it has none.
        interval_us: between two of its POSTs; 0 without a rate.
        next_us: from when its next POST counts.
        most: POSTs that it may have open; 0 for any number.
        waits_ms: since when the lane waits for room here.
        pause: its pause; None where it is not paused.
    """

    lane_states: Mapping[str, LaneState]
    state: str
    interval_us: int
    next_us: int
    most: int
    waits_ms: int | None
    pause: Pause | None

    @property
    def open(self) -> int:
        """Number of its POSTs that may be open."""
        return sum(state.open for state in self.lane_states.values())


class Endpoint(NamedTuple):
    """Endpoint that the next POST of the lane goes to; of a claimed postback its own.

    Attributes:
        name: scheme, host and port.
        open: POSTs open there, where they are counted.
        start: its slow start; None where it connects.
        waits_ms: since when the lane waits for room here.
    """

    name: str
    open: int
    start: EndpointStart | None
    waits_ms: int | None


class Quarantine(NamedTuple):
    """Quarantine that the postback stands in.

    Attributes:
        size: postbacks in it.
        alone: whether ours is tried alone.
        examined_ms: when an examiner last looked.
    """

    size: int
    alone: bool
    examined_ms: int | None


class Ended(NamedTuple):
    """Postback that has ended."""

    record: Record


class Queued(NamedTuple):
    """Postback that the ledger does not have, as far as its message was found in Celery's queue.

    Attributes:
        now_ms: the broker's time.
        system: what moves every postback.
        ahead: messages that are taken in before it; None where it was not found.
        waiting: messages in the queue and in the intake.
        looked_at: of them those that were looked at.
        lease_ms: when the lease of the tick ends that has it; None where no tick has.
    """

    now_ms: int
    system: System
    ahead: int | None
    waiting: int
    looked_at: int
    lease_ms: int | None


class Standing(NamedTuple):
    """Postback that has not ended, and where it stands.

    Attributes:
        now_ms: the broker's time.
        system: what moves every postback.
        record: its record.
        fields: its record as it is stored.
        claim: the loop that has it.
        in_place: whether it stands where its record says, as far as was looked.
        lane: its lane.
        account: its account.
        endpoint: where the next POST goes.
        quarantine: the quarantine, where it stands there.
    """

    now_ms: int
    system: System
    record: Record
    fields: Mapping[bytes, bytes]
    claim: Claim | None
    in_place: bool
    lane: Lane
    account: Account
    endpoint: Endpoint
    quarantine: Quarantine | None


class _Transaction:
    """Questions to the broker by name, answered in one instant.

    Args:
        client: the broker's.
    """

    def __init__(self, client: Any) -> None:
        self._pipe = client.pipeline(transaction=True)
        self._names: list[str] = []

    def ask(self, name: str, command: str, *arguments: Any, **options: Any) -> None:
        """Add a question."""
        getattr(self._pipe, command)(*arguments, **options)
        self._names.append(name)

    def run(self) -> dict[str, Any]:
        """Return the answers."""
        return dict(zip(self._names, self._pipe.execute(), strict=True))


def read(client: redis.Redis, postback_id: str, *, clock_offset_ms: int = 0) -> Ended | Queued | Standing:
    """Read the situation of a postback, again while it moves, ``READINGS_MAX`` times at most.

    A reading takes the record, the first of its lane and one transaction of some forty commands; the dearest look at
    ``POSITION_MAX`` ids from each end of its lane and at ``TURN_MAX`` lanes of each ring. Of a postback that has ended the
    record is all, and of one that the ledger does not have ``MESSAGES_MAX`` messages are read from each end of each list of
    Celery's queue.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    broker: Any = client
    situation: Queued | Standing
    with broker_errors():
        for _ in range(READINGS_MAX):
            fields = broker.hgetall(keys.record(postback_id))
            record = Record.from_hash(postback_id, fields) if fields else None
            if record is not None and record.state in states.FINAL_STATES:
                return Ended(record)
            system = System(why_refused(client), memory.read(client).share)
            if record is None:
                situation, stable = _read_message(broker, postback_id, system, clock_offset_ms)
            else:
                situation, stable = _read_record(broker, record, fields, system, clock_offset_ms)
            if stable:
                break
    return situation


def _ask_for_system(transaction: _Transaction) -> None:
    transaction.ask("time", "time")
    transaction.ask("tick", "get", keys.LAST_TICK)
    transaction.ask("turns", "hmget", keys.RING_CLOCK, "emptied", "examined")
    for key in (keys.WORKERS, keys.BEATS, keys.CLAIMERS):
        transaction.ask(key, "zrange", key, 0, -1, withscores=True)


def _system(system: System, replies: Mapping[str, Any], clock_offset_ms: int) -> tuple[int, System]:
    now_ms = to_ms(replies["time"]) + clock_offset_ms
    return now_ms, system._replace(
        last_tick_ms=_ms(replies["tick"]),
        emptied_ms=_ms(replies["turns"][0]),
        workers=find_present(replies[keys.WORKERS], now_ms),
        beats=find_present(replies[keys.BEATS], now_ms),
        loops=sum(ends_ms > now_ms for _, ends_ms in replies[keys.CLAIMERS]),
    )


def _read_message(client: Any, postback_id: str, system: System, clock_offset_ms: int) -> tuple[Queued, bool]:
    """Read the situation of a postback that the ledger does not have; False where it has it by now."""
    transaction = _Transaction(client)
    _ask_for_system(transaction)
    transaction.ask("known", "exists", keys.record(postback_id))
    transaction.ask("lease", "hget", keys.INTAKE_LEASE, "expires_ms")
    queue = (keys.INTAKE, *keys.QUEUE_LISTS)  # in the order in which they are accepted
    for key in queue:
        transaction.ask(f"length {key}", "llen", key)
        transaction.ask(f"first {key}", "lrange", key, 0, MESSAGES_MAX - 1)
        transaction.ask(f"last {key}", "lrange", key, -MESSAGES_MAX, -1)
    replies = transaction.run()
    now_ms, system = _system(system, replies, clock_offset_ms)
    ahead, waiting, looked_at, lease_ms = None, 0, 0, None
    for key in queue:
        length, first, last = (replies[f"{part} {key}"] for part in ("length", "first", "last"))
        looked_at += min(length, len(first) + len(last))
        at = _index_of(postback_id, length, first, last)
        if at is not None and ahead is None:
            # The queue's lists are pushed left and taken from the right, the intake is pushed right.
            ahead = waiting + (at if key == keys.INTAKE else length - 1 - at)
            lease_ms = _ms(replies["lease"]) if key == keys.INTAKE else None
        waiting += length
    return Queued(now_ms, system, ahead, waiting, looked_at, lease_ms), not replies["known"]


def _index_of(postback_id: str, length: int, first: list[bytes], last: list[bytes]) -> int | None:
    """Find a postback's message in a list, of which the first and the last ones were read."""
    from postbacks.queue.message import find_id  # noqa: PLC0415 - the catalogue takes long to load

    for start, messages in ((0, first), (length - len(last), last)):
        for at, message in enumerate(messages):
            if find_id(message) == postback_id:
                return start + at
    return None


def _read_record(
    client: Any, record: Record, fields: Mapping[bytes, bytes], system: System, clock_offset_ms: int
) -> tuple[Standing, bool]:
    """Read the situation of a postback that has not ended; False where it has moved meanwhile."""
    name = keys.lane_name(record.account, record.group)
    waits = record.state == states.WAITING
    in_lane = waits and b"suspicion" not in fields  # else in the quarantine
    head = client.lindex(keys.lane(name), 0) if in_lane else None
    raw_endpoint = fields.get(b"endpoint")
    if head is not None and head != record.id.encode():
        raw_endpoint = client.hget(keys.record(head.decode()), "endpoint")
    endpoint = text(raw_endpoint or b"")

    transaction = _Transaction(client)
    _ask_for_system(transaction)
    transaction.ask("fields", "hgetall", keys.record(record.id))
    transaction.ask("parked", "zscore", keys.PARKED, record.id)
    transaction.ask("quarantined", "zscore", keys.QUARANTINE, record.id)
    transaction.ask("quarantine", "zcard", keys.QUARANTINE)
    _ask_for_lane(transaction, name, record.id)
    groups = tuple(
        dict.fromkeys((*keys.GROUPS, record.group))
    )  # a record that was spoilt by hand may name another
    _ask_for_account(transaction, record.account, name, groups)
    _ask_for_endpoint(transaction, endpoint, name)
    replies = transaction.run()

    claim = None if waits or record.state == states.PARKED else Ledger(client).claim_of(record.id)
    now_ms, system = _system(system, replies, clock_offset_ms)
    account = _account(replies, record.account, groups)
    lane = _lane(replies, name, account.lane_states[record.group])
    quarantine = None
    if replies["quarantined"] is not None:
        quarantine = Quarantine(
            replies["quarantine"], replies["quarantined"] >= ALONE, _ms(replies["turns"][1])
        )
    if record.state == states.PARKED:
        in_place = replies["parked"] is not None
    elif waits:
        deep = lane.ahead is None and lane.state.waiting > 2 * POSITION_MAX
        in_place = quarantine is not None or lane.ahead is not None or deep
    else:
        in_place = claim is not None
    target = _endpoint(replies, endpoint)
    standing = Standing(now_ms, system, record, fields, claim, in_place, lane, account, target, quarantine)
    stable = (
        in_place
        and replies["fields"] == fields
        and (not in_lane or replies["head"] == head)
        and (claim is None or (claim.attempt is None) == (record.state == states.HELD))
    )
    return standing, stable


def _ask_for_lane(transaction: _Transaction, lane: str, postback_id: str) -> None:
    transaction.ask("head", "lindex", keys.lane(lane), 0)
    transaction.ask("from head", "lpos", keys.lane(lane), postback_id, maxlen=POSITION_MAX)
    transaction.ask("from end", "lpos", keys.lane(lane), postback_id, rank=-1, maxlen=POSITION_MAX)
    transaction.ask("failing", "zscore", keys.FAILING, lane)
    transaction.ask("delayed", "zscore", keys.DELAYED, lane)
    for ring in RINGS:
        transaction.ask(ring, "zscore", RINGS[ring], lane)
        transaction.ask(f"{ring} lanes", "zrange", RINGS[ring], 0, TURN_MAX - 1)


def _lane(replies: Mapping[str, Any], name: str, state: LaneState) -> Lane:
    ring = next((ring for ring in RINGS if replies[ring] is not None), "")
    lanes = [lane.decode() for lane in replies[f"{ring} lanes"]] if ring else []
    ahead = replies["from head"] if replies["from head"] is not None else replies["from end"]
    return Lane(
        state, ahead, _ms(replies["failing"]), ring, lanes.index(name) if name in lanes else None, _ms(replies["delayed"]),
    )  # fmt: skip


def _ask_for_account(transaction: _Transaction, account: str, lane: str, groups: Sequence[str]) -> None:
    transaction.ask("row", "hget", keys.ROUTES, account)
    transaction.ask("pause", "hget", keys.PAUSES, account)
    transaction.ask("pacing", "hget", keys.PACING, account)
    transaction.ask("next", "hget", keys.RATES, account)
    transaction.ask("waits for account", "zscore", keys.WAITING_FOR_ROOM + account, lane)
    for group in groups:
        name = keys.lane_name(account, group)
        transaction.ask(f"waiting {group}", "llen", keys.lane(name))
        transaction.ask(
            f"state {group}", "hmget", keys.LANE_STATE + name, "claimed", "held", "limit", "failing"
        )


def _account(replies: Mapping[str, Any], name: str, groups: Sequence[str]) -> Account:
    pacing = Pacing.parse(replies["pacing"])
    lane_states = {
        group: _lane_state(replies[f"waiting {group}"], *replies[f"state {group}"]) for group in groups
    }
    waits_us, stored = replies["waits for account"], replies["pause"]
    pause = None if stored is None else parse(name, stored)
    return Account(
        lane_states, since_and_state(replies["row"])[1] if replies["row"] else "", pacing.interval_us,
        int(replies["next"] or 0), pacing.max_transfers,
        None if waits_us is None else int(waits_us // 1000), pause,
    )  # fmt: skip


def _lane_state(
    waiting: int, claimed: bytes | None, held: bytes | None, limit: bytes | None, failing: bytes | None
) -> LaneState:
    return LaneState(waiting, int(claimed or 0), int(held or 0), int(limit or 1), failing == b"1")


def _ask_for_endpoint(transaction: _Transaction, endpoint: str, lane: str) -> None:
    transaction.ask("open at endpoint", "hget", keys.ENDPOINTS, endpoint)
    transaction.ask("start", "hget", keys.STARTS, endpoint)
    transaction.ask("waits for endpoint", "zscore", keys.WAITING_FOR_ROOM + endpoint, lane)


def _endpoint(replies: Mapping[str, Any], name: str) -> Endpoint:
    waits_us = replies["waits for endpoint"]
    waits_ms = None if waits_us is None else int(waits_us // 1000)
    return Endpoint(
        name, int(replies["open at endpoint"] or 0), EndpointStart.parse(replies["start"]), waits_ms
    )


def _ms(value: bytes | float | None) -> int | None:
    return None if value is None else int(float(value))
