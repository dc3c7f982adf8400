"""The moves against a model: any sequence of them, any death between them, and every postback where it must be.

Hypothesis makes up the sequences and shrinks one that fails to its core. The model is a few dictionaries; the
broker is a real one; the invariants are the doctor's own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from postbacks import keys
from postbacks.accounts import Account
from postbacks.devtools.local import EmbeddedBroker
from postbacks.doctor import audit, scripts
from postbacks.ledger.digest import fresh_id
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.record import OVERHEAD_BYTES, SCHEMA, STUB_BYTES
from postbacks.ledger.states import ACCEPTED, BACKLOG_FULL, ID_TAKEN, KNOWN, REVOKED, STUB
from postbacks.queue.routes import row_of
from postbacks.queue.rows import AcceptRow
from postbacks.queue.scripts import ALONE_DEATHS_MAX, ALONE_LAPSES_MAX, FEW, Scripts, claim_call
from postbacks.queue.shares import Shares

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
DOCUMENTS_BYTES = 3400
#: Bytes that an account's dead may take when its oldest go.
DEAD_BYTES = 4600

ACCOUNTS = ("a", "b")
GROUPS = ("general", "mo", "mt")
TOKENS = ("one", "two", "three")
EXAMINERS = ("examiner", "another")
MINUTE_MS = 60_000

# Multiples of 5 s, all of them: the time that the test itself takes never decides.
moments = st.sampled_from((5_000, 15_000, 30_000, 300_000, 86_400_000))


@dataclass
class Postback:
    """What the model knows of one: where it must be and how often its POST began."""

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
    """What is known of the endpoint since it failed to connect."""

    since: int
    last: int
    limit: int
    up: bool


class Moves(RuleBasedStateMachine):
    """All moves, in any order."""

    broker: EmbeddedBroker

    def __init__(self) -> None:
        super().__init__()
        self.client = self.broker.client()
        self.client.flushdb()
        self.scripts = Scripts(self.client)
        self.messages: list[Postback] = []  # what was published, oldest first; an id may be in it twice
        self.intake: list[Postback] = []
        self.known: dict[str, Postback] = {}  # taken in
        self.remembered: dict[str, set[str]] = {}  # revoked before they came: whose, empty for anybody's
        self.first_ids: dict[str, str] = {}  # of what came under an id that was taken
        self.taken = 0
        #: Account: whether its origin is switched off, or it is gone and since when.
        self.off: set[str] = set()
        self.gone: dict[str, int] = {}
        self.retires: dict[str, int] = {}  # account: when what waits for it ends
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

    def teardown(self) -> None:
        """Whatever happened: an hour and a tick later nothing is held by anybody, and nothing is lost."""
        self.scripts.clock_offset_ms += 3_600_000
        self.release(1000)
        for _ in range(len(TOKENS) + len(EXAMINERS) + 1):
            self.reap(1000)
        self.everything_holds()
        assert not self.client.exists(keys.CLAIMERS)
        self.client.close()

    @property
    def now(self) -> int:
        return self.scripts.clock_offset_ms

    def of(self, *places: str) -> list[Postback]:
        return [one for one in self.known.values() if one.place in places]

    # -- coming in ------------------------------------------------------------------------------

    @initialize(
        count=st.integers(1, 8), account=st.sampled_from(ACCOUNTS), group=st.sampled_from(GROUPS),
        endpoint_max=st.sampled_from((0, 0, 1)),
    )  # fmt: skip
    def some_wait(self, count: int, account: str, group: str, endpoint_max: int) -> None:
        """Begin with something to move."""
        self.endpoint_max = endpoint_max
        for _ in range(count):
            self.publish(account, group, None)
        self.take_in("tick", 500)
        self.accept("tick")

    @rule(account=st.sampled_from(ACCOUNTS), group=st.sampled_from(GROUPS), due=st.none() | moments)
    def publish(self, account: str, group: str, due: int | None) -> None:
        """An application sends one, perhaps with a countdown."""
        self.count += 1
        one = Postback(f"p{self.count:04}", account, group, None if due is None else self.now + due)
        self.messages.append(one)
        self.client.lpush(keys.QUEUE, one.id)

    @precondition(lambda self: self.known or self.messages)
    @rule(data=st.data(), account=st.sampled_from(ACCOUNTS), event=st.sampled_from("ab"))
    def publish_again(self, data: st.DataObject, account: str, event: str) -> None:
        """The same id is sent again: for the same postback, for another event, or by another account."""
        sent = {one.id: one for one in (*self.known.values(), *self.messages)}
        again = sent[data.draw(st.sampled_from(sorted(sent)), "id")]
        twin = Postback(again.id, account, again.group, None, event)
        self.messages.append(twin)
        self.client.lpush(keys.QUEUE, twin.id)

    @rule(token=st.sampled_from(("tick", "tock")), at_most=st.integers(1, 500))
    def take_in(self, token: str, at_most: int) -> None:
        """A tick takes messages; it may die before it accepts them."""
        reply = self.scripts.take_in(token, INTAKE_MS, at_most)
        holder, ends = self.intake_lease
        if holder and holder != token and self.now < ends <= self.now + 2 * INTAKE_MS:
            assert reply is None
            return
        if holder and holder != token and self.intake:
            self.intake_alone_deaths += self.intake_alone
            self.intake_alone = False
            self.intake_deaths += 1
        self.intake_lease = (token, self.now + INTAKE_MS)
        room = 0 if self.intake_deaths else max(0, at_most - len(self.intake))
        self.intake += self.messages[:room]
        del self.messages[:room]
        assert [raw.decode() for raw in reply.messages] == [one.id for one in self.intake]
        assert reply.at_once == (0, FEW, 1)[min(2, self.intake_deaths)]
        assert reply.alone_deaths == self.intake_alone_deaths
        if reply.at_once == 1:
            self.scripts.accept_alone(token)
            self.intake_alone = True

    @rule(token=st.sampled_from(("tick", "tock")), at_most=st.sampled_from((1, 2, 500)))
    def accept(self, token: str, at_most: int = 500) -> None:
        """A tick accepts what is in the intake, or its first, if the intake is still its own."""
        rows: list[AcceptRow] = []
        first = self.intake[:at_most]
        for one in first:
            due = "" if one.due_ms is None else self.epoch_ms(one.due_ms)
            rows.append(
                AcceptRow(
                    one.id, one.account, one.group, "SUB", "N301", "http://x/", "http://x:80", b"<xml/>",
                    "waiting", "", b"", due, one.digest, "0",
                )
            )  # fmt: skip
        dead_bytes = self.dead_bytes()
        reply = self.scripts.accept(token, SCHEMA, BACKLOG_MAX, DOCUMENTS_BYTES, len(first), rows)
        if self.intake_lease[0] != token:
            assert reply is None
            return
        assert reply == [self.accepted(one, dead_bytes) for one in first]
        del self.intake[:at_most]
        if first or not self.intake:
            self.intake_alone_deaths, self.intake_alone = 0, False
        if not self.intake:
            self.intake_deaths = 0
        self.scripts.end_intake(token)
        self.intake_lease = ("", 0)

    def dead_bytes(self) -> Counter[str]:
        """What the records of each account's dead take, by the records themselves."""
        taken: Counter[str] = Counter()
        for one in self.of("dead"):
            taken[one.account] += int(self.client.hget(keys.record(one.id), "bytes"))
        return taken

    def accepted(self, one: Postback, dead_bytes: Counter[str]) -> int:
        """What the model makes of an accepted message."""
        known = self.known.get(one.id)
        if known is not None and known.digest == one.digest and known.stub:
            del self.known[one.id]
            dead_bytes[one.account] -= STUB_BYTES
        elif known is not None and known.digest == one.digest:
            return KNOWN
        elif known is not None:
            first_id, one.id = one.id, fresh_id(one.id, one.digest)
            if one.id in self.known:
                return KNOWN
            self.known[one.id], one.place = one, "dead"
            self.first_ids[one.id] = first_id
            dead_bytes[one.account] += RECORD_BYTES + len("id_taken")
            self.taken += 1
            return ID_TAKEN
        if self.remembered.pop(one.id, set()) & {"", one.account}:
            self.known[one.id], one.place = one, "cancelled"
            return REVOKED
        waiting = sum(other.open for other in self.known.values() if other.lane == one.lane)
        self.known[one.id] = one
        if waiting >= BACKLOG_MAX:
            one.place = "dead"
            one.stub = dead_bytes[one.account] + RECORD_BYTES > DOCUMENTS_BYTES
            dead_bytes[one.account] += STUB_BYTES if one.stub else RECORD_BYTES
            return STUB if one.stub else BACKLOG_FULL
        one.place = "parked" if one.due_ms is not None and one.due_ms > self.now else "waiting"
        return ACCEPTED

    def epoch_ms(self, offset_ms: int) -> int:
        """An offset of the model's clock on the broker's."""
        seconds, microseconds = self.client.time()
        return seconds * 1000 + microseconds // 1000 + offset_ms

    # -- the worker's way -----------------------------------------------------------------------

    @rule(
        token=st.sampled_from(TOKENS), at_most=st.integers(1, 10), held_max=st.sampled_from((0, 2, 100)),
        suspects=st.sampled_from((0, 1, 10)), free=st.sampled_from((1, 64, 2000)),
        slow=st.lists(st.sampled_from([f"{a}/{g}" for a in ACCOUNTS for g in GROUPS]), max_size=2, unique=True),
    )  # fmt: skip
    def claim(
        self, token: str, at_most: int, held_max: int, suspects: int, free: int, slow: list[str]
    ) -> None:
        """A loop claims; what it gets is up to the script, but it waited before, or its countdown had ended."""
        due = self.due()
        call = claim_call(
            token, LEASE_MS, at_most=at_most, suspects_max=suspects, free=free, held_max=held_max,
            held_per_lane=3, slow_lanes=slow, endpoint_max=self.endpoint_max,
        )  # fmt: skip
        _, begun, held, next_due_ms, ended, still = self.scripts.run(*call)
        parked = self.client.exists(keys.PARKED) and self.client.zcard(keys.CLAIMERS) <= 2
        assert (next_due_ms >= 0) == bool(self.client.exists(keys.DELAYED) or parked)
        assert self.released(due, begun, held, ended) == len(due)
        assert {account.decode() for account in still} <= set(self.gone)
        for row in ended:
            one = self.known[row[0].decode()]
            assert (one.place, one.account in self.off, row[4]) == ("waiting", True, b"skipped")
            one.place = "skipped"
        sent = {self.known[row[0].decode()].account for row in (*begun, *held)}
        assert not sent & (self.off | set(self.gone))
        self.leases[token] = self.now + LEASE_MS
        self.seen_to_die.discard(token)
        assert len(begun) <= at_most
        assert len(held) <= held_max
        for row in begun:
            one = self.known[row[0].decode()]
            assert one.place == "waiting"
            one.place, one.token, one.attempts = "claimed", token, one.attempts + 1
            assert (row[1].decode(), row[3], int(row[4])) == (one.lane, one.attempts, one.failures)
            self.notes.append((token, one.id, one.lane, one.attempts))
        for row in held:
            one = self.known[row[0].decode()]
            assert one.place == "waiting"
            one.place, one.token = "held", token
            assert (row[1].decode(), int(row[3]), int(row[4])) == (one.lane, one.attempts, one.failures)
        self.has_passed([self.known[row[0].decode()] for row in begun])

    @precondition(lambda self: self.of("waiting"))
    @rule(token=st.sampled_from(TOKENS))
    def claim_much(self, token: str) -> None:
        """A loop with all its room claims."""
        self.claim(token, 10, 100, 10, 2000, [])

    @precondition(lambda self: self.of("quarantine"))
    @rule(token=st.sampled_from(EXAMINERS))
    def examine(self, token: str) -> None:
        """An examiner takes a few, or one alone while it has nothing else."""
        mine = [one for one in self.of("claimed") if one.token == token]
        _, rows, later = self.scripts.examine(token, LEASE_MS, self.endpoint_max)
        self.leases[token] = self.now + LEASE_MS
        self.seen_to_die.discard(token)
        chosen = [self.known[row[0].decode()] for row in rows]
        assert not {one.account for one in chosen} & (self.off | set(self.gone))
        for one in self.of("quarantine"):
            state = self.client.hget(keys.record(one.id), "state")
            if state == b"skipped":
                assert one.account in self.off
                one.place = "skipped"
            elif state == b"parked":
                assert self.now - self.gone[one.account] < KEEP_MS
                one.place, one.suspicion, one.due_ms = "parked", "alone", self.now + STILL_MS
            elif state == b"dead":
                assert self.now - self.gone[one.account] >= KEEP_MS
                one.place, one.suspicion, one.alone_deaths, one.alone_lapses = "dead", "", 0, 0
        if any(one.alone for one in mine):
            assert not chosen
        elif chosen and chosen[0].suspicion == "alone":
            assert (len(chosen), mine) == (1, [])
            chosen[0].alone = True
        else:
            few = [one for one in self.of("quarantine") if one.suspicion == "few"]
            assert len(few) - len(chosen) <= max(later, len(few) - FEW + len(mine))
            assert not later or self.endpoint_max or self.pacing or self.gone
        for row, one in zip(rows, chosen, strict=True):
            assert one.place == "quarantine"
            one.place, one.token, one.attempts = "claimed", token, one.attempts + 1
            assert (row[1].decode(), row[3], int(row[4])) == (one.lane, one.attempts, one.failures)
            self.notes.append((token, one.id, one.lane, one.attempts))
        self.has_passed(chosen, ahead_ms=MINUTE_MS)

    @precondition(lambda self: self.of("waiting", "quarantine"))
    @rule(token=st.sampled_from(EXAMINERS), deaths=st.sampled_from((1, 2, 5)), twice=st.booleans())
    def die_again_and_again(self, token: str, deaths: int, *, twice: bool) -> None:
        """Whatever has anything in flight dies, and so do the examiners after it."""
        self.claim("one", 10, 100, 10, 2000, [])
        for _ in range(deaths):
            self.scripts.clock_offset_ms += PAUSE_MS
            if twice:
                self.see_it_die(token)
            for _ in (*TOKENS, *EXAMINERS):
                self.reap(1000)
            self.release(1000)
            for _ in range(1 + twice):
                self.examine(token)

    def see_it_die(self, token: str) -> None:
        """Its keeper ends the lease of an examiner that is dead."""
        if token in self.leases:
            self.client.zadd(keys.CLAIMERS, {token: 0}, xx=True)
            self.leases[token] = self.now
            self.seen_to_die.add(token)

    @precondition(lambda self: set(self.leases) & set(TOKENS))
    @rule(data=st.data())
    def freeze(self, data: st.DataObject) -> None:
        """A loop stands still for longer than its lease, is reaped, and goes on under its old token."""
        token = data.draw(st.sampled_from(sorted(set(self.leases) & set(TOKENS))), "token")
        self.scripts.clock_offset_ms += LEASE_MS
        for _ in (*TOKENS, *EXAMINERS):
            self.reap(1000)
        self.claim(token, 10, 100, 10, 2000, [])

    @precondition(lambda self: self.of("held", "claimed"))
    @rule(token=st.sampled_from(TOKENS), data=st.data(), told_ms=st.sampled_from((0, 1 << 50)))
    def begin(self, token: str, data: st.DataObject, told_ms: int) -> None:
        """Some of what is held goes out; asked again as the answer was lost, nothing is counted twice."""
        ids = data.draw(self.some(self.of("held", "claimed")), "ids")
        _, rows, later, full, _, moved = self.scripts.begin(token, ids, self.endpoint_max, told_ms)
        waiting = [one.decode() for one in (*later, *moved)]
        assert {self.known[one.decode()].account for one in moved} <= self.off | set(self.gone)
        assert {self.known[one].place for one in waiting} <= {"held"}
        assert not later or full or self.pacing
        assert not full or self.endpoint_max or self.known_start().limit
        mine = [one for one in ids if self.known[one].token == token and one not in waiting]
        assert [row[0].decode() for row in rows] == mine
        began = [self.known[one] for one in mine if self.known[one].place == "held"]
        for row in rows:
            one = self.known[row[0].decode()]
            if one.place == "held":
                one.place, one.attempts = "claimed", one.attempts + 1
                self.notes.append((token, one.id, one.lane, one.attempts))
            assert (row[1], int(row[2])) == (one.attempts, one.failures)
        self.has_passed(began)

    @precondition(lambda self: self.notes)
    @rule(
        data=st.data(), verdict=st.sampled_from(("delivered", "parked", "dead")),
        mood=st.sampled_from(("ok", "slow", "failed")), limit_max=st.sampled_from((1, 10)),
        outcome=st.sampled_from(("connect_timeout", "refused", "status", "blocked")),
    )  # fmt: skip
    def commit(self, data: st.DataObject, verdict: str, mood: str, limit_max: int, outcome: str) -> None:
        """A POST is noted, however late and whatever became of its claim meanwhile."""
        token, one, lane, number = data.draw(st.sampled_from(sorted(self.notes)), "note")
        outcome = "delivered" if verdict == "delivered" else outcome
        self.note(token, one, lane, number, verdict, mood, limit_max, outcome)

    @precondition(lambda self: self.of("held"))
    @rule(data=st.data(), verdict=st.sampled_from(("parked", "dead")))
    def share(self, data: st.DataObject, verdict: str) -> None:
        """A connect time-out counts for one that is only held."""
        one = self.known[data.draw(st.sampled_from(sorted(one.id for one in self.of("held"))), "held")]
        one.attempts += 1
        one.place = "claimed"
        self.notes.append((one.token, one.id, one.lane, one.attempts))
        self.note(one.token, one.id, one.lane, one.attempts, verdict, "shared", 10, "connect_timeout")

    def note(
        self,
        token: str,
        one: str,
        lane: str,
        number: int,
        verdict: str,
        mood: str,
        limit_max: int,
        outcome: str,
    ) -> None:
        """Commit one note, here and in the model."""
        mood = mood if verdict == "delivered" or mood == "shared" else "failed"
        attempt = f'{{"number": {number}, "at_ms": 0, "outcome": "{verdict}"}}'
        # what had no connection is due at the next whole second: far from the moments, too
        countdown_ms = COUNTDOWN_MS + (2_000 if outcome == "connect_timeout" else 0)
        row = (one, lane, verdict, number, attempt, countdown_ms, mood, outcome)
        ((state, _),) = self.scripts.commit(token, LEASE_MS, limit_max, 86_400, row)
        if token in self.leases:
            self.leases[token] = self.now + LEASE_MS
            self.seen_to_die.discard(token)
        postback = self.known.get(one)
        if not postback or (postback.place, postback.token, postback.attempts) != ("claimed", token, number):
            assert state == b"", "somebody else has it"
            return
        if mood == "shared" and postback.account in self.off:
            assert state == b"waiting", "its account has left the endpoint"
            postback.attempts -= 1
            postback.place, postback.token = "waiting", ""
            return
        if mood != "shared":
            self.counted = max(0, self.counted - 1)
            self.learn(outcome)
        postback.token = ""
        postback.suspicion, postback.alone, postback.alone_deaths, postback.alone_lapses = "", False, 0, 0
        postback.noted[number] = verdict
        if verdict == "delivered":
            postback.place = "delivered"
        else:
            postback.failures += 1
            postback.place = "cancelled" if postback.cancel else verdict
            postback.due_ms = self.now + countdown_ms
        assert state.decode() == postback.place

    @rule(token=st.sampled_from(TOKENS), data=st.data())
    def give_back(self, token: str, data: st.DataObject) -> None:
        """A loop that stops gives back what it holds, and leaves when it has nothing more."""
        ids = data.draw(self.some(self.of("held", "claimed", "waiting")), "ids") if self.known else []
        back = [
            self.known[one]
            for one in ids
            if (self.known[one].place, self.known[one].token) == ("held", token)
        ]
        assert self.scripts.give_back(token, ids) == len(back)
        for one in back:
            self.return_to_lane(one)
        if not any(one.token == token for one in self.known.values()):
            self.leases.pop(token, None)

    def return_to_lane(self, one: Postback) -> None:
        """Back to the front of its lane, unless it was revoked meanwhile."""
        one.place, one.token = "cancelled" if one.cancel else "waiting", ""

    @rule(token=st.sampled_from(TOKENS))
    def renew(self, token: str) -> None:
        """A loop keeps its lease, as long as nobody took it."""
        assert self.scripts.renew(token, LEASE_MS) == (token in self.leases)
        if token in self.leases:
            self.leases[token] = self.now + LEASE_MS
            self.seen_to_die.discard(token)

    # -- the tick's way -------------------------------------------------------------------------

    @rule(at_most=st.sampled_from((1, 3, 1000)))
    def reap(self, at_most: int) -> None:
        """What a loop held whose lease ran out is taken back, in one bite or several."""
        before = {one.id: one.token for one in self.of("claimed", "held")}
        expired = {token for token, ends in self.leases.items() if ends <= self.now}
        taken = self.scripts.reap(at_most, PAUSE_MS)
        if not expired:
            assert taken == 0
            return
        back = [self.known[one] for one in before if not self.is_claimed(one)]
        assert len(back) == taken <= 5 * at_most  # a loop's are taken back together, as far as it goes
        assert {before[one.id] for one in back} <= expired
        self.counted = max(0, self.counted - sum(one.place == "claimed" for one in back))
        for one in back:
            if one.place == "claimed":
                one.noted[one.attempts] = "unknown"
            if one.cancel or one.place == "held":
                self.return_to_lane(one)
            else:
                self.suspect(one)
        for token in expired:
            if not self.client.zscore(keys.CLAIMERS, token):
                assert not any(one.token == token for one in self.known.values())
                self.leases.pop(token)
                self.seen_to_die.discard(token)
        if not taken:
            assert not expired & set(self.leases), "an empty claimer stays"

    def suspect(self, one: Postback) -> None:
        """Its process died while its POST was open."""
        seen, one.token = one.token in self.seen_to_die, ""
        if not one.alone:
            one.place, one.suspicion = "quarantine", "alone" if one.suspicion else "few"
            return
        one.alone = False
        if seen:
            one.alone_deaths += 1
        else:
            one.alone_lapses += 1
        one.place, one.due_ms = "parked", self.now + PAUSE_MS
        if one.alone_deaths == ALONE_DEATHS_MAX or one.alone_lapses == ALONE_LAPSES_MAX:
            one.place, one.suspicion, one.alone_deaths, one.alone_lapses = "dead", "", 0, 0
            one.poison = True

    def is_claimed(self, one: str) -> bool:
        return any(self.client.hexists(keys.claims(token), one) for token in (*TOKENS, *EXAMINERS))

    @rule(at_most=st.sampled_from((1, 1000)))
    def release(self, at_most: int) -> None:
        """Parked ones that are due go to their lanes."""
        due = self.due()
        assert self.scripts.release(at_most) == min(at_most, len(due))
        self.released(due)

    def due(self) -> list[Postback]:
        """Parked ones whose countdown has ended."""
        return [one for one in self.of("parked") if one.due_ms <= self.now]

    def released(self, due: list[Postback], *rows: list[list[bytes]]) -> int:
        """Follow those of them that a script has released, which may have claimed them since; returns how many."""
        claimed = {row[0].decode() for some in rows for row in some}
        gone = [
            one
            for one in due
            if one.id in claimed or self.client.hget(keys.record(one.id), "state") == b"waiting"
        ]
        for one in gone:
            one.place = "quarantine" if one.suspicion else "waiting"
        return len(gone)

    @rule(
        done_days=st.sampled_from((0.5, 100)),
        dead_days=st.sampled_from((0.5, 100)),
        dead_bytes=st.sampled_from((DEAD_BYTES, 1 << 50)),
    )
    def retain(self, done_days: float, dead_days: float, dead_bytes: int) -> None:
        """Old records go; never one that is still to be sent. Of an account with many dead the oldest go early."""
        day_s = RETAIN_MS / 1000
        may_take = Shares(1 << 50, 1 << 50, dead_bytes, DOCUMENTS_BYTES, BACKLOG_MAX)
        retained = self.scripts.retain(done_days * day_s, dead_days * day_s, 1e9, may_take, 1000)
        taken = {account: self.client.zscore(keys.DEAD_BYTES, account) or 0 for account in ACCOUNTS}
        assert max(taken.values()) <= dead_bytes
        assert set(retained.near) == {name for name in ACCOUNTS if taken[name] > DOCUMENTS_BYTES}
        self.forget_dropped()

    @rule(done=st.booleans(), dead=st.booleans())
    def make_room(self, done: bool, dead: bool) -> None:
        """A broker that is nearly full drops some of what has ended; never one that is still to be sent."""
        self.scripts.make_room(done << 50, dead << 50, 0, 3)
        self.forget_dropped()

    def forget_dropped(self) -> None:
        """What the ledger has dropped had ended."""
        for one in self.of("delivered", "cancelled", "skipped", "dead"):
            if not self.client.exists(keys.record(one.id)):
                del self.known[one.id]

    @precondition(lambda self: any(one.id in self.first_ids for one in self.of("dead")))
    @rule(data=st.data())
    def retract(self, data: st.DataObject) -> None:
        """What came under an id that is taken turns out to be the postback that has it."""
        ids = sorted(one.id for one in self.of("dead") if one.id in self.first_ids)
        kept = data.draw(st.sampled_from(ids), "kept")
        assert self.scripts.retract(kept)
        assert not self.scripts.retract(kept)
        del self.known[kept]
        self.taken -= 1

    # -- accounts -------------------------------------------------------------------------------

    @rule(account=st.sampled_from(ACCOUNTS), state=st.sampled_from(("on", "off", "gone")))
    def account_changes(self, account: str, state: str) -> None:
        """An account is set, has its origin switched off, or is removed."""
        row = Account(name=account, url="http://x/", off=frozenset({"SUB"} if state == "off" else ()))
        self.scripts.set_routes(KEEP_MS, {account: row_of(None if state == "gone" else row)})
        self.off.discard(account)
        if state == "off":
            self.off.add(account)
        if state != "gone":
            self.gone.pop(account, None)
            self.retires.pop(account, None)
        else:
            self.gone.setdefault(account, self.now)
            self.retires.setdefault(account, self.now + KEEP_MS)

    @rule()
    def retire(self) -> None:
        """What waits for an account that is gone for long enough is dead."""
        over = {account for account, at in self.retires.items() if at <= self.now}
        ended, accounts = self.scripts.retire(1000)
        self.come_up()
        waiting = [one for one in self.of("waiting") if one.account in over]
        assert ended == len(waiting)
        assert set(accounts) == {one.account for one in waiting}
        for one in waiting:
            one.place = "dead"
        for account in over:
            if any(one.open for one in self.known.values() if one.account == account):
                self.retires[account] = self.now + STILL_MS
            else:
                del self.gone[account], self.retires[account]

    # -- limits ---------------------------------------------------------------------------------

    @rule(
        account=st.sampled_from(ACCOUNTS), weight=st.sampled_from((1, 3)), slow=st.booleans(),
        most=st.sampled_from((0, 1, 2)),
    )  # fmt: skip
    def pace(self, account: str, weight: int, *, slow: bool, most: int) -> None:
        """An account gets a weight, a rate and a most of open POSTs, or loses them."""
        plain = (weight, slow, most) == (1, False, 0)
        self.scripts.set_pacing({account: "" if plain else f"{weight} {MINUTE_MS * 1000 * slow} {most}"})
        self.pacing.pop(account, None)
        if plain:
            self.next_ms.pop(account, None)
        else:
            self.pacing[account] = (slow, most)

    def has_passed(self, begun: list[Postback], ahead_ms: int = 0) -> None:
        """What has begun was allowed to: by its account's rate and by what was open."""
        open_now = self.of("claimed")
        for one in begun:
            slow, most = self.pacing.get(one.account, (False, 0))
            if most:
                assert sum(other.account == one.account for other in open_now) <= most
            if slow:
                next_ms = self.next_ms.get(one.account, self.now)
                if next_ms > self.now + 2 * MINUTE_MS:  # the clock was put back
                    next_ms = self.now
                assert next_ms < self.now + ahead_ms + 5_000
                self.next_ms[one.account] = max(self.now, next_ms) + MINUTE_MS
            self.enter(exempt=ahead_ms > 0)
        if self.endpoint_max and begun:
            assert len(open_now) <= self.endpoint_max

    def known_start(self) -> Start | None:
        """What is known of the endpoint now; its limit is 0 while it may have any number open."""
        if self.start is None:
            return None
        since, last = min(self.now, self.start.since), min(self.now, self.start.last)
        begins = not self.start.limit and self.now - since >= 10_000
        return replace(self.start, since=since, last=last, limit=1 if begins else self.start.limit)

    def enter(self, *, exempt: bool) -> None:
        """A POST begins; while the endpoint starts slowly it was one that may."""
        start = self.known_start()
        if start and start.limit:
            if not exempt:
                if not self.counted and self.now - start.last >= 10_000:
                    start.limit = 1
                assert self.counted < start.limit or self.now - start.last >= 60_000
            start.last = self.now
            self.start = start
        if self.endpoint_max or (start and start.limit):
            self.counted += 1

    def learn(self, outcome: str) -> None:
        """A POST has ended."""
        start = self.known_start()
        most = {"connect_timeout": 1, "refused": 10}.get(outcome)
        if outcome == "blocked" or (not start and not most):
            return
        if most and not start:
            self.start = Start(self.now, self.now, 0, up=False)
        elif most:
            if start.limit and self.now - start.since >= 10_000:
                start.limit = min(most, start.limit + 1)
            self.start = replace(start, last=self.now, up=False)
        elif not start.limit or start.limit >= 100 or (start.up and self.now - start.since >= 10_000):
            self.start = None
        else:
            self.start = Start(self.now, self.now, start.limit + 1, up=True)

    # -- people ---------------------------------------------------------------------------------

    @rule(data=st.data(), account=st.sampled_from(("", *ACCOUNTS)), search=st.sampled_from((1, 1, 1000)))
    def cancel(self, data: st.DataObject, account: str, search: int) -> None:
        """A postback is revoked, wherever it is: whosever it is, or that of an account alone."""
        ids = sorted({one.id for one in (*self.known.values(), *self.messages, *self.intake)})
        chosen = data.draw(st.sampled_from(ids), "id") if ids else "p0000"
        state = self.scripts.cancel(chosen, 86_400, account, search)
        one = self.known.get(chosen)
        deep = bool(self.client.hexists(keys.record(chosen), "in_lane"))
        if one is None:
            self.remembered.setdefault(chosen, set()).add(account)
            assert state == "cancelled"
        elif account not in {"", one.account}:
            assert state == ""
        elif one.place in {"waiting", "quarantine", "parked"}:
            assert not deep or (search == 1 and one.place == "waiting")
            one.place = "left" if deep else "cancelled"
            assert state == "cancelled"
        elif one.place in {"claimed", "held"}:
            one.cancel = True
            assert state == "sending"
        else:
            assert state == ("cancelled" if one.place == "left" else one.place)

    def come_up(self) -> None:
        """What was cancelled deep in a lane ends when it comes up there."""
        for one in self.of("left"):
            if not self.client.hexists(keys.record(one.id), "in_lane"):
                one.place = "cancelled"

    @precondition(lambda self: self.of("dead"))
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """A dead one is sent again by hand."""
        one = self.known[data.draw(st.sampled_from(sorted(one.id for one in self.of("dead"))), "dead")]
        assert self.scripts.replay(one.id) == "waiting"
        one.place, one.failures = "waiting", 0
        if one.poison:
            one.place, one.suspicion, one.poison = "quarantine", "alone", False

    # -- time -----------------------------------------------------------------------------------

    @rule(ms=moments)
    def clock_goes_on(self, ms: int) -> None:
        """Time passes."""
        self.scripts.clock_offset_ms += ms

    @rule(ms=st.sampled_from((5_000, 20_000)))
    def clock_is_put_back(self, ms: int) -> None:
        """The broker's clock is corrected."""
        self.scripts.clock_offset_ms -= ms

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def pace_is_forgotten(self, data: st.DataObject) -> None:
        """A day without an outcome: Redis drops the pace, where it may."""
        lanes = sorted(
            {one.lane for one in self.of("claimed", "held")} or {one.lane for one in self.known.values()}
        )
        lane = data.draw(st.sampled_from(lanes), "lane")
        if self.client.ttl(keys.LANE_STATE + lane) > 0:
            self.client.delete(keys.LANE_STATE + lane)

    # -- what must hold -------------------------------------------------------------------------

    def some(self, postbacks: list[Postback]) -> st.SearchStrategy[list[str]]:
        ids = [one.id for one in postbacks]
        return st.lists(st.sampled_from(ids), unique=True, max_size=4) if ids else st.just([])

    @invariant()
    def everything_holds(self) -> None:
        """After each step."""
        self.come_up()
        self.all_in_their_places()
        self.attempts_are_counted_right()
        self.counts_are_right()
        self.ids_are_told_apart()
        self.lanes_that_may_be_claimed_from_are_in_turn()

    def all_in_their_places(self) -> None:
        """The doctor finds nothing, and the model agrees about every postback."""
        found = audit.recheck(self.scripts, audit.survey(self.scripts, 60))
        faults = {name: dict(faults) for name, faults in found.faults.items() if faults}
        faults.pop(audit.LANES_EMPTY, None)  # revoked: the next claim drops the lane
        assert faults == {}
        names = {"claimed": "sending", "held": "sending", "quarantine": "waiting", "left": "cancelled"}
        expected = {one.id: names.get(one.place, one.place) for one in self.known.values()}
        places = {place.id: place for place in scripts.places(self.scripts, dict.fromkeys(self.known, ()))}
        assert {one: place.state for one, place in places.items()} == expected
        lost = {one for one in (keys.record(one) for one in self.known) if not self.client.exists(one)}
        assert not lost
        for one in self.known.values():
            if one.place == "left":
                assert places[one.id].places == (f"lane {one.lane}",)
            if one.place == "quarantine":
                assert places[one.id].places == ("quarantine",)
            if one.token:
                assert places[one.id].places == (f"claims {one.token}",)
        assert [raw.decode() for raw in self.client.lrange(keys.INTAKE, 0, -1)] == [
            one.id for one in self.intake
        ]
        assert self.client.llen(keys.QUEUE) == len(self.messages)

    def attempts_are_counted_right(self) -> None:
        """Every POST that began has a number of its own, and what became of it where that is known."""
        ledger = Ledger(self.client)
        for one in self.known.values():
            attempts, failures = self.client.hmget(keys.record(one.id), "attempts", "failures")
            record = ledger.find(one.id)
            begun = one.attempts
            assert (int(attempts), int(failures)) == (begun, one.failures), one
            assert {attempt.number: attempt.outcome for attempt in record.attempts} == one.noted
            missing = set(range(1, begun + 1)) - set(one.noted)
            assert missing == ({begun} if one.place == "claimed" else set()), one

    def ids_are_told_apart(self) -> None:
        """What came under an id that is taken names it, and is counted."""
        ledger = Ledger(self.client)
        first_ids = {one: ledger.get(one).first_id for one in self.known}
        assert first_ids == {one: self.first_ids.get(one, "") for one in self.known}
        assert int(self.client.hget(keys.TOTALS, "id_taken") or 0) == self.taken

    def counts_are_right(self) -> None:
        """Backlogs and the estimate of memory."""
        backlog = {name.decode(): int(count) for name, count in self.client.hgetall(keys.BACKLOG).items()}
        assert backlog == dict(Counter(one.account for one in self.known.values() if one.open))
        units = {name.decode(): int(count) for name, count in self.client.hgetall(keys.OPEN).items()}
        assert units == dict(Counter(one.lane for one in self.known.values() if one.open))
        for account in ACCOUNTS:
            dead = [one for one in self.of("dead") if one.account == account]
            stubs = self.client.zrange(keys.STUBS_OF + account, 0, -1)
            assert {one.decode() for one in stubs} == {one.id for one in dead if one.stub}
            whole = self.client.zrange(keys.DEAD_OF + account, 0, -1)
            assert {one.decode() for one in whole} == {one.id for one in dead if not one.stub}
        dead_bytes = self.client.zrange(keys.DEAD_BYTES, 0, -1, withscores=True)
        assert {name.decode(): int(taken) for name, taken in dead_bytes} == dict(self.dead_bytes())
        counted = sum(int(self.client.hget(keys.record(one), "bytes") or 0) for one in self.known)
        assert int(self.client.get(keys.LEDGER_BYTES) or 0) == counted

    def lanes_that_may_be_claimed_from_are_in_turn(self) -> None:
        """No lane is ever stuck, and none has more claims than the most its limit ever was."""
        lanes = {one.lane for one in self.known.values()}
        for lane in scripts.lanes(self.scripts, sorted(lanes)):
            assert lane.claimed == lane.counted >= 0
            assert lane.held == lane.held_counted
            if lane.waiting and lane.claimable:
                assert lane.trusted != lane.suspect or lane.aside, lane
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


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
def test_any_sequence_of_moves_and_deaths_leaves_every_postback_in_its_place():
    """The model and the broker agree after each of some thousand steps."""
    with EmbeddedBroker(config={"appendonly": "no"}) as broker:
        Moves.broker = broker
        run_state_machine_as_test(
            Moves,
            settings=settings(
                max_examples=36,
                report_multiple_bugs=False,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=(
                    Phase.explicit,
                    Phase.generate,
                ),  # shrinking takes minutes; switch it on to look closer
            ),
        )
