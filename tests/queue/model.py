"""Model of the queue: the postbacks as they must be, and what must hold of the broker after each move.

The model is a few dictionaries; the invariants are the doctor's own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis.stateful import RuleBasedStateMachine, invariant

from postbacks import keys
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.doctor import audit, scripts
from postbacks.history.feed import Feed
from postbacks.ledger.footprint import OVERHEAD_BYTES, STUB_BYTES
from postbacks.ledger.record import Record
from postbacks.ledger.states import FINAL_STATES, PARKED, SENDING, WAITING
from postbacks.queue import pauses
from postbacks.queue.scripts import Scripts

LEASE_MS = 30_000
INTAKE_MS = 10_000
COUNTDOWN_MS = 300_000
PAUSE_MS = 300_000
BACKLOG_MAX = 6
RETAIN_MS = 86_400_000
KEEP_MS = 3_600_000
STILL_MS = 30_000
#: What each record takes that was accepted here, before its attempts.
RECORD_BYTES = OVERHEAD_BYTES + len("<xml/>") + len("http://x/")
#: Bytes of an account's dead beyond which the document of what has no room is not kept: three records.
DOCUMENTS_BYTES = 3 * RECORD_BYTES + 50
#: Bytes that an account's dead may take when its oldest go: these, and two stubs.
DEAD_BYTES = DOCUMENTS_BYTES + 2 * STUB_BYTES

ACCOUNTS = ("a", "b")
GROUPS = ("general", "mo", "mt")
TOKENS = ("one", "two", "three")
EXAMINERS = ("examiner", "another")
MINUTE_MS = 60_000
#: Fields of a record that no copy needs.
NOT_COPIED = frozenset({b"in_lane"})


@dataclass
class Postback:
    """Postback as the model knows it: where it must be, and how often its POST began."""

    id: str
    account: str
    group: str
    due_ms: int | None
    event: str = "a"
    # queue, intake, waiting, quarantine, claimed, held, parked, delivered, cancelled, skipped, dead, dropped;
    # left: cancelled, and still in its lane
    place: str = "queue"
    token: str = ""
    suspicion: str = ""  # few, alone
    alone: bool = False  # in flight, and nothing else in its examiner
    alone_deaths: int = 0
    alone_lapses: int = 0
    poison: bool = False  # dead for these
    stub: bool = False  # dead, its document not kept
    forgotten: bool = False  # its document erased, as a person was to be forgotten
    attempts: int = 0
    failures: int = 0
    cancel: bool = False
    noted: dict[int, str] = field(default_factory=dict)

    @property
    def lane(self) -> str:
        return f"{self.account}/{self.group}"

    @property
    def digest(self) -> bytes:
        return f"{self.account} {self.event}".encode()

    @property
    def open(self) -> bool:
        return self.place in {"waiting", "quarantine", "claimed", "held", "parked", "left"}


@dataclass
class Start:
    """Slow start of the endpoint: what is known of it since it failed to connect."""

    since: int
    last: int
    limit: int
    up: bool


class Model(RuleBasedStateMachine):
    """State of the model, and the invariants that compare it with the broker."""

    broker: EmbeddedBroker

    def __init__(self) -> None:
        super().__init__()
        self.client = self.broker.client()
        self.client.flushdb()
        self.scripts = Scripts(self.client)
        self.feed = Feed(self.client)
        self.feed.register()
        self.read_through = ""
        self.copies: dict[
            str, dict[bytes, bytes]
        ] = {}  # what a recorder that reads after each step has of each id
        self.messages: list[Postback] = []  # what was published, oldest first; an id may be in it twice
        self.intake: list[Postback] = []
        self.known: dict[str, Postback] = {}  # taken in
        self.records: dict[str, dict[bytes, bytes]] = {}  # as they were read after the latest step
        self.remembered: dict[str, set[str]] = {}  # revoked before they came: whose, empty for anybody's
        self.first_ids: dict[str, str] = {}  # of what came under an id that was taken
        self.taken = 0
        #: Account: whether its origin is switched off, or it is gone and since when.
        self.off: set[str] = set()
        self.gone: dict[str, int] = {}
        self.retires: dict[str, int] = {}  # account: when what waits for it ends
        self.paused: dict[str, int | None] = {}  # account: when its pause ends, None for no end
        self.leases: dict[str, int] = {}  # offset at which a loop's lease ends
        self.intake_lease: tuple[str, int] = ("", 0)
        self.intake_deaths = self.intake_alone_deaths = 0
        self.intake_alone = False
        self.seen_to_die: set[str] = set()
        self.notes: list[tuple[str, str, str, int]] = []  # token, id, lane, number of every POST begun
        self.count = 0
        self.endpoint_max = 0
        self.start: Start | None = None
        self.counted = 0  # open at the endpoint, of those that were counted
        #: Account: whether it has a POST a minute, and how many it may have open.
        self.pacing: dict[str, tuple[bool, int]] = {}
        self.next_ms: dict[str, int] = {}  # account: from when its next POST counts

    @property
    def now(self) -> int:
        return self.scripts.clock_offset_ms

    def in_force(self) -> set[str]:
        """Accounts of which nothing may begin: their pause has not ended."""
        return {account for account, ends in self.paused.items() if ends is None or ends > self.now}

    def of(self, *places: str) -> list[Postback]:
        return [postback for postback in self.known.values() if postback.place in places]

    def dead_bytes(self) -> Counter[str]:
        """Add up the bytes of each account's dead records, by the records themselves."""
        taken: Counter[str] = Counter()
        for postback in self.of("dead"):
            taken[postback.account] += int(self.client.hget(keys.record(postback.id), "bytes"))
        return taken

    def epoch_ms(self, offset_ms: int) -> int:
        """An offset of the model's clock on the broker's."""
        seconds, microseconds = self.client.time()
        return seconds * 1000 + microseconds // 1000 + offset_ms

    def is_claimed(self, postback_id: str) -> bool:
        return any(self.client.hexists(keys.claims(token), postback_id) for token in (*TOKENS, *EXAMINERS))

    def due(self) -> list[Postback]:
        """Parked ones whose countdown has ended."""
        return [postback for postback in self.of("parked") if postback.due_ms <= self.now]

    def known_start(self) -> Start | None:
        """Return what is known of the endpoint now; its limit is 0 while it may have any number open."""
        if self.start is None:
            return None
        since, last = min(self.now, self.start.since), min(self.now, self.start.last)
        begins = not self.start.limit and self.now - since >= 10_000
        return replace(self.start, since=since, last=last, limit=1 if begins else self.start.limit)

    def read_records(self) -> None:
        """Read the record of each postback that was taken in."""
        pipe = self.client.pipeline(transaction=False)
        for postback_id in self.known:
            pipe.hgetall(keys.record(postback_id))
        self.records = dict(zip(self.known, pipe.execute(), strict=True))

    def come_up(self) -> None:
        """End what was cancelled deep in a lane and has come up there."""
        for postback in self.of("left"):
            if not self.client.hexists(keys.record(postback.id), "in_lane"):
                postback.place = "cancelled"

    @invariant()
    def everything_holds(self) -> None:
        """After each step. The records are read once for all that is compared with them."""
        self.read_records()
        self.come_up()
        self.all_in_their_places()
        self.attempts_are_counted_right()
        self.counts_are_right()
        self.pauses_are_told()
        self.ids_are_told_apart()
        self.lanes_that_may_be_claimed_from_are_in_turn()
        self.the_feed_tells_what_changes()

    def all_in_their_places(self) -> None:
        """The doctor finds nothing, and the model agrees about every postback."""
        found = audit.run(self.scripts, 60)
        if self.faults_of(
            found
        ):  # suspicions: nothing moves here, but some checks count exactly the second time alone
            found = audit.recheck(self.scripts, found)
        assert self.faults_of(found) == {}
        names = {"claimed": "sending", "held": "sending", "quarantine": "waiting", "left": "cancelled"}
        expected = {
            postback.id: names.get(postback.place, postback.place) for postback in self.known.values()
        }
        places = {place.id: place for place in scripts.locate(self.scripts, dict.fromkeys(self.known, ()))}
        assert {postback_id: place.state for postback_id, place in places.items()} == expected
        assert all(self.records.values())
        for postback in self.known.values():
            if postback.place == "left":
                assert places[postback.id].places == (f"lane {postback.lane}",)
            if postback.place == "quarantine":
                assert places[postback.id].places == ("quarantine",)
            if postback.token:
                assert places[postback.id].places == (f"claims {postback.token}",)
        assert [raw.decode() for raw in self.client.lrange(keys.INTAKE, 0, -1)] == [
            postback.id for postback in self.intake
        ]
        assert self.client.llen(keys.QUEUE) == len(self.messages)

    @staticmethod
    def faults_of(found: audit.Audit) -> dict[str, dict[str, str]]:
        """Return what an audit has found, but lanes whose postbacks were all revoked: the next claim drops them."""
        return {
            name: dict(faults)
            for name, faults in found.faults.items()
            if faults and name != audit.LANES_EMPTY
        }

    def attempts_are_counted_right(self) -> None:
        """Every POST that began has a number of its own, and what became of it where that is known."""
        for postback in self.known.values():
            fields = self.records[postback.id]
            record = Record.from_hash(postback.id, fields)
            begun = postback.attempts
            assert (int(fields[b"attempts"]), int(fields[b"failures"])) == (begun, postback.failures), (
                postback
            )
            assert {attempt.number: attempt.outcome for attempt in record.attempts} == postback.noted
            missing = set(range(1, begun + 1)) - set(postback.noted)
            assert missing == ({begun} if postback.place == "claimed" else set()), postback

    def pauses_are_told(self) -> None:
        """Whoever asks is told who is paused, until when, and how many wait."""
        told = pauses.read(self.client)
        assert told.keys() == self.paused.keys()
        for account, pause in told.items():
            assert (pause.until_ms is None) == (self.paused[account] is None)
            assert pause.waiting == sum(
                postback.account == account for postback in self.of("waiting", "left")
            )

    def ids_are_told_apart(self) -> None:
        """A postback that came under a taken id names it, and is counted."""
        first_ids = {
            postback_id: fields.get(b"first_id", b"").decode() for postback_id, fields in self.records.items()
        }
        assert first_ids == {postback_id: self.first_ids.get(postback_id, "") for postback_id in self.known}
        assert int(self.client.hget(keys.TOTALS, "id_taken") or 0) == self.taken

    def counts_are_right(self) -> None:
        """Backlogs and the estimate of memory."""
        backlog = {name.decode(): int(count) for name, count in self.client.hgetall(keys.BACKLOG).items()}
        assert backlog == dict(Counter(postback.account for postback in self.known.values() if postback.open))
        units = {name.decode(): int(count) for name, count in self.client.hgetall(keys.OPEN).items()}
        assert units == dict(Counter(postback.lane for postback in self.known.values() if postback.open))
        for account in ACCOUNTS:
            dead = [postback for postback in self.of("dead") if postback.account == account]
            stubs = self.client.zrange(keys.STUBS_OF + account, 0, -1)
            assert {raw.decode() for raw in stubs} == {
                postback.id for postback in dead if postback.stub or postback.forgotten
            }
            whole = self.client.zrange(keys.DEAD_OF + account, 0, -1)
            assert {raw.decode() for raw in whole} == {
                postback.id for postback in dead if not (postback.stub or postback.forgotten)
            }
        dead_bytes = self.client.zrange(keys.DEAD_BYTES, 0, -1, withscores=True)
        assert {name.decode(): int(taken) for name, taken in dead_bytes} == dict(self.dead_bytes())
        counted = sum(int(fields.get(b"bytes", 0)) for fields in self.records.values())
        assert int(self.client.get(keys.LEDGER_BYTES) or 0) == counted

    def lanes_that_may_be_claimed_from_are_in_turn(self) -> None:
        """No lane is ever stuck, and none has more claims than the most its limit ever was."""
        lanes = {postback.lane for postback in self.known.values()}
        for lane in scripts.count_lanes(self.scripts, sorted(lanes)):
            assert lane.claimed == lane.claimed_counted >= 0
            assert lane.held == lane.held_counted
            if lane.waiting and lane.claimable:
                assert lane.trusted != lane.suspect or lane.delayed, lane
        counts = {name.decode(): int(count) for name, count in self.client.hgetall(keys.ENDPOINTS).items()}
        assert counts == ({"http://x:80": self.counted} if self.counted else {})
        if self.endpoint_max:
            assert self.counted == len(self.of("claimed"))
        starts = {
            name.decode(): text.decode().split() for name, text in self.client.hgetall(keys.STARTS).items()
        }
        assert {name: (int(fields[2]), fields[3] == "1") for name, fields in starts.items()} == (
            {"http://x:80": (self.start.limit, self.start.up)} if self.start else {}
        )

    def the_feed_tells_what_changes(self) -> None:
        """A recorder that copies what the feed names has each record that is parked or has ended as it is.

        Of those that wait or are sent it knows that they are not at their end. Nothing is named that has not changed.
        """
        entries, _ = self.feed.read(100_000, self.read_through)
        for entry in entries:
            self.read_through = entry.id
            assert len(set(entry.ids)) == len(entry.ids), entry
        for postback_id in {postback_id for entry in entries for postback_id in entry.ids}:
            record, before = self.record_of(postback_id), self.copies.pop(postback_id, None)
            assert record != (before or {}), postback_id
            if record:
                self.copies[postback_id] = record
        for postback_id in self.known:
            record, copy = self.copied(self.records[postback_id]), self.copies[postback_id]
            state = record[b"state"].decode()
            if state in {WAITING, SENDING}:
                assert copy[b"state"].decode() in {WAITING, SENDING, PARKED}
                assert {name for name in copy if name.startswith(b"attempt:")} <= set(record)
            else:
                assert state in {PARKED, *FINAL_STATES}
                assert copy == record

    def record_of(self, postback_id: str) -> dict[bytes, bytes]:
        """Read a record, as a recorder copies it."""
        known = self.records.get(postback_id)
        return self.copied(self.client.hgetall(keys.record(postback_id)) if known is None else known)

    @staticmethod
    def copied(fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
        return {name: value for name, value in fields.items() if name not in NOT_COPIED}
