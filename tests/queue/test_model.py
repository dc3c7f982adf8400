"""Moves against the model: any sequence of them, any death between them, and every postback where it must be.

Hypothesis makes up the sequences and shrinks one that fails to its core. The broker is a real one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import (
    ACCOUNTS,
    BACKLOG_MAX,
    COUNTDOWN_MS,
    DEAD_BYTES,
    DOCUMENTS_BYTES,
    EXAMINERS,
    GROUPS,
    INTAKE_MS,
    KEEP_MS,
    LEASE_MS,
    MINUTE_MS,
    PAUSE_MS,
    RECORD_BYTES,
    RETAIN_MS,
    STILL_MS,
    TOKENS,
    Model,
    Postback,
    Start,
)

from postbacks import keys
from postbacks.accounts import Account
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.ledger.digest import fresh_id
from postbacks.ledger.footprint import STUB_BYTES
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.record import SCHEMA
from postbacks.ledger.states import ACCEPTED, BACKLOG_FULL, ID_TAKEN, KNOWN, REVOKED, STUB
from postbacks.queue.routes import row_of
from postbacks.queue.rows import AcceptRow, AttemptRow, ClaimRow, EndedRow, HeldRow, PutBackRow
from postbacks.queue.scripts import ALONE_DEATHS_MAX, ALONE_LAPSES_MAX, FEW, claim_call
from postbacks.queue.shares import Shares

# Multiples of 5 s, all of them: the time that the test itself takes never decides.
moments = st.sampled_from((5_000, 15_000, 30_000, 300_000, 86_400_000))


class Moves(Model):
    """All moves, in any order."""

    def teardown(self) -> None:
        """Whatever happened: an hour and a tick later nothing is held by anybody, and nothing is lost."""
        self.scripts.clock_offset_ms += 3_600_000
        self.release(1000)
        for _ in range(len(TOKENS) + len(EXAMINERS) + 1):
            self.reap(1000)
        self.everything_holds()
        assert not self.client.exists(keys.CLAIMERS)
        self.client.close()

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
        postback = Postback(f"p{self.count:04}", account, group, None if due is None else self.now + due)
        self.messages.append(postback)
        self.client.lpush(keys.QUEUE, postback.id)

    @precondition(lambda self: self.known or self.messages)
    @rule(data=st.data(), account=st.sampled_from(ACCOUNTS), event=st.sampled_from("ab"))
    def publish_again(self, data: st.DataObject, account: str, event: str) -> None:
        """The same id is sent again: for the same postback, for another event, or by another account."""
        sent = {postback.id: postback for postback in (*self.known.values(), *self.messages)}
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
        assert [raw.decode() for raw in reply.messages] == [postback.id for postback in self.intake]
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
        for postback in first:
            due = "" if postback.due_ms is None else self.epoch_ms(postback.due_ms)
            rows.append(
                AcceptRow(
                    postback.id, postback.account, postback.group, "SUB", "N301", "http://x/", "http://x:80", b"<xml/>",
                    "waiting", "", b"", due, postback.digest, "0",
                )
            )  # fmt: skip
        dead_bytes = self.dead_bytes()
        reply = self.scripts.accept(token, SCHEMA, BACKLOG_MAX, DOCUMENTS_BYTES, len(first), rows)
        if self.intake_lease[0] != token:
            assert reply is None
            return
        assert reply == [self.accepted(postback, dead_bytes) for postback in first]
        del self.intake[:at_most]
        if first or not self.intake:
            self.intake_alone_deaths, self.intake_alone = 0, False
        if not self.intake:
            self.intake_deaths = 0
        self.scripts.end_intake(token)
        self.intake_lease = ("", 0)

    def accepted(self, postback: Postback, dead_bytes: Counter[str]) -> int:
        """Follow an accepted message in the model; returns what the script must say of it."""
        known = self.known.get(postback.id)
        if known is not None and known.digest == postback.digest and known.stub:
            del self.known[postback.id]
            dead_bytes[postback.account] -= STUB_BYTES
        elif known is not None and known.digest == postback.digest:
            return KNOWN
        elif known is not None:
            first_id, postback.id = postback.id, fresh_id(postback.id, postback.digest)
            if postback.id in self.known:
                return KNOWN
            self.known[postback.id], postback.place = postback, "dead"
            self.first_ids[postback.id] = first_id
            dead_bytes[postback.account] += RECORD_BYTES + len("id_taken")
            self.taken += 1
            return ID_TAKEN
        if self.remembered.pop(postback.id, set()) & {"", postback.account}:
            self.known[postback.id], postback.place = postback, "cancelled"
            return REVOKED
        waiting = sum(other.open for other in self.known.values() if other.lane == postback.lane)
        self.known[postback.id] = postback
        if waiting >= BACKLOG_MAX:
            postback.place = "dead"
            postback.stub = dead_bytes[postback.account] + RECORD_BYTES > DOCUMENTS_BYTES
            dead_bytes[postback.account] += STUB_BYTES if postback.stub else RECORD_BYTES
            return STUB if postback.stub else BACKLOG_FULL
        postback.place = "parked" if postback.due_ms is not None and postback.due_ms > self.now else "waiting"
        return ACCEPTED

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
        begun, held = [ClaimRow(*row) for row in begun], [HeldRow(*row) for row in held]
        ended = [EndedRow(*row) for row in ended]
        parked = self.client.exists(keys.PARKED) and self.client.zcard(keys.CLAIMERS) <= 2
        assert (next_due_ms >= 0) == bool(self.client.exists(keys.DELAYED) or parked)
        assert self.released(due, begun, held, ended) == len(due)
        assert {account.decode() for account in still} <= set(self.gone)
        for row in ended:
            postback = self.known[row.id.decode()]
            assert (postback.place, postback.account in self.off, row.state) == ("waiting", True, b"skipped")
            postback.place = "skipped"
        sent = {self.known[row.id.decode()].account for row in (*begun, *held)}
        assert not sent & (self.off | set(self.gone))
        self.leases[token] = self.now + LEASE_MS
        self.seen_to_die.discard(token)
        assert len(begun) <= at_most
        assert len(held) <= held_max
        for row in begun:
            postback = self.known[row.id.decode()]
            assert postback.place == "waiting"
            postback.place, postback.token, postback.attempts = "claimed", token, postback.attempts + 1
            assert (row.lane.decode(), row.number, int(row.failures)) == (
                postback.lane,
                postback.attempts,
                postback.failures,
            )
            self.notes.append((token, postback.id, postback.lane, postback.attempts))
        for row in held:
            postback = self.known[row.id.decode()]
            assert postback.place == "waiting"
            postback.place, postback.token = "held", token
            assert (row.lane.decode(), int(row.attempts), int(row.failures)) == (
                postback.lane,
                postback.attempts,
                postback.failures,
            )
        self.has_passed([self.known[row.id.decode()] for row in begun])

    @precondition(lambda self: self.of("waiting"))
    @rule(token=st.sampled_from(TOKENS))
    def claim_much(self, token: str) -> None:
        """A loop with all its room claims."""
        self.claim(token, 10, 100, 10, 2000, [])

    @precondition(lambda self: self.of("quarantine"))
    @rule(token=st.sampled_from(EXAMINERS))
    def examine(self, token: str) -> None:
        """An examiner takes a few, or one alone while it has nothing else."""
        mine = [postback for postback in self.of("claimed") if postback.token == token]
        _, rows, later = self.scripts.examine(token, LEASE_MS, self.endpoint_max)
        self.leases[token] = self.now + LEASE_MS
        self.seen_to_die.discard(token)
        chosen = [self.known[row.id.decode()] for row in rows]
        assert not {postback.account for postback in chosen} & (self.off | set(self.gone))
        for postback in self.of("quarantine"):
            state = self.client.hget(keys.record(postback.id), "state")
            if state == b"skipped":
                assert postback.account in self.off
                postback.place = "skipped"
            elif state == b"parked":
                assert self.now - self.gone[postback.account] < KEEP_MS
                postback.place, postback.suspicion, postback.due_ms = "parked", "alone", self.now + STILL_MS
            elif state == b"dead":
                assert self.now - self.gone[postback.account] >= KEEP_MS
                postback.place, postback.suspicion, postback.alone_deaths, postback.alone_lapses = (
                    "dead",
                    "",
                    0,
                    0,
                )
        if any(postback.alone for postback in mine):
            assert not chosen
        elif chosen and chosen[0].suspicion == "alone":
            assert (len(chosen), mine) == (1, [])
            chosen[0].alone = True
        else:
            few = [postback for postback in self.of("quarantine") if postback.suspicion == "few"]
            assert len(few) - len(chosen) <= max(later, len(few) - FEW + len(mine))
            assert not later or self.endpoint_max or self.pacing or self.gone
        for row, postback in zip(rows, chosen, strict=True):
            assert postback.place == "quarantine"
            postback.place, postback.token, postback.attempts = "claimed", token, postback.attempts + 1
            assert (row.lane.decode(), row.number, int(row.failures)) == (
                postback.lane,
                postback.attempts,
                postback.failures,
            )
            self.notes.append((token, postback.id, postback.lane, postback.attempts))
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
        """The keeper of an examiner that is dead ends its lease."""
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
    @rule(token=st.sampled_from(TOKENS), data=st.data(), known_ms=st.sampled_from((0, 1 << 50)))
    def begin(self, token: str, data: st.DataObject, known_ms: int) -> None:
        """Some of what is held goes out; asked again as the answer was lost, nothing is counted twice."""
        ids = data.draw(self.some(self.of("held", "claimed")), "ids")
        _, rows, later, full, _, moved = self.scripts.begin(token, ids, self.endpoint_max, known_ms)
        waiting = [raw.decode() for raw in (*later, *moved)]
        assert {self.known[raw.decode()].account for raw in moved} <= self.off | set(self.gone)
        assert {self.known[postback_id].place for postback_id in waiting} <= {"held"}
        assert not later or full or self.pacing
        assert not full or self.endpoint_max or self.known_start().limit
        mine = [
            postback_id
            for postback_id in ids
            if self.known[postback_id].token == token and postback_id not in waiting
        ]
        assert [row.id.decode() for row in rows] == mine
        began = [self.known[postback_id] for postback_id in mine if self.known[postback_id].place == "held"]
        for row in rows:
            postback = self.known[row.id.decode()]
            if postback.place == "held":
                postback.place, postback.attempts = "claimed", postback.attempts + 1
                self.notes.append((token, postback.id, postback.lane, postback.attempts))
            assert (row.number, int(row.failures)) == (postback.attempts, postback.failures)
        self.has_passed(began)

    @precondition(lambda self: self.notes)
    @rule(
        data=st.data(), verdict=st.sampled_from(("delivered", "parked", "dead")),
        mood=st.sampled_from(("ok", "slow", "failed")), limit_max=st.sampled_from((1, 10)),
        outcome=st.sampled_from(("connect_timeout", "refused", "status", "blocked")),
    )  # fmt: skip
    def commit(self, data: st.DataObject, verdict: str, mood: str, limit_max: int, outcome: str) -> None:
        """A POST is noted, however late and whatever became of its claim meanwhile."""
        token, postback, lane, number = data.draw(st.sampled_from(sorted(self.notes)), "note")
        outcome = "delivered" if verdict == "delivered" else outcome
        self.note(token, postback, lane, number, verdict, mood, limit_max, outcome)

    @precondition(lambda self: self.of("held"))
    @rule(data=st.data(), verdict=st.sampled_from(("parked", "dead")))
    def share(self, data: st.DataObject, verdict: str) -> None:
        """A connect time-out counts for one that is only held."""
        postback = self.known[
            data.draw(st.sampled_from(sorted(postback.id for postback in self.of("held"))), "held")
        ]
        postback.attempts += 1
        postback.place = "claimed"
        self.notes.append((postback.token, postback.id, postback.lane, postback.attempts))
        self.note(
            postback.token,
            postback.id,
            postback.lane,
            postback.attempts,
            verdict,
            "shared",
            10,
            "connect_timeout",
        )

    def note(
        self,
        token: str,
        postback_id: str,
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
        row = AttemptRow(postback_id, lane, verdict, number, attempt, countdown_ms, mood, outcome)
        ((state, _),) = self.scripts.commit(token, LEASE_MS, limit_max, 86_400, [row])
        if token in self.leases:
            self.leases[token] = self.now + LEASE_MS
            self.seen_to_die.discard(token)
        postback = self.known.get(postback_id)
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
            self.known[postback_id]
            for postback_id in ids
            if (self.known[postback_id].place, self.known[postback_id].token) == ("held", token)
        ]
        assert self.scripts.give_back(token, ids) == len(back)
        for postback in back:
            self.return_to_lane(postback)
        if not any(postback.token == token for postback in self.known.values()):
            self.leases.pop(token, None)

    def return_to_lane(self, postback: Postback) -> None:
        """Back to the front of its lane, unless it was revoked meanwhile."""
        postback.place, postback.token = "cancelled" if postback.cancel else "waiting", ""

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
        """Postbacks of a loop whose lease ran out are taken back, in one bite or several."""
        before = {postback.id: postback.token for postback in self.of("claimed", "held")}
        expired = {token for token, ends in self.leases.items() if ends <= self.now}
        taken = self.scripts.reap(at_most, PAUSE_MS)
        if not expired:
            assert taken == 0
            return
        back = [self.known[postback_id] for postback_id in before if not self.is_claimed(postback_id)]
        assert len(back) == taken <= 5 * at_most  # a loop's are taken back together, as far as it goes
        assert {before[postback.id] for postback in back} <= expired
        self.counted = max(0, self.counted - sum(postback.place == "claimed" for postback in back))
        for postback in back:
            if postback.place == "claimed":
                postback.noted[postback.attempts] = "unknown"
            if postback.cancel or postback.place == "held":
                self.return_to_lane(postback)
            else:
                self.suspect(postback)
        for token in expired:
            if not self.client.zscore(keys.CLAIMERS, token):
                assert not any(postback.token == token for postback in self.known.values())
                self.leases.pop(token)
                self.seen_to_die.discard(token)
        if not taken:
            assert not expired & set(self.leases), "an empty claimer stays"

    def suspect(self, postback: Postback) -> None:
        """Follow a postback whose process died while its POST was open."""
        seen, postback.token = postback.token in self.seen_to_die, ""
        if not postback.alone:
            postback.place, postback.suspicion = "quarantine", "alone" if postback.suspicion else "few"
            return
        postback.alone = False
        if seen:
            postback.alone_deaths += 1
        else:
            postback.alone_lapses += 1
        postback.place, postback.due_ms = "parked", self.now + PAUSE_MS
        if postback.alone_deaths == ALONE_DEATHS_MAX or postback.alone_lapses == ALONE_LAPSES_MAX:
            postback.place, postback.suspicion, postback.alone_deaths, postback.alone_lapses = (
                "dead",
                "",
                0,
                0,
            )
            postback.poison = True

    @rule(at_most=st.sampled_from((1, 1000)))
    def release(self, at_most: int) -> None:
        """Parked ones that are due go to their lanes."""
        due = self.due()
        assert self.scripts.release(at_most) == min(at_most, len(due))
        self.released(due)

    def released(self, due: list[Postback], *rows: list[ClaimRow] | list[HeldRow] | list[EndedRow]) -> int:
        """Follow those of them that a script has released, which may have claimed them since; returns how many."""
        claimed = {row.id.decode() for some in rows for row in some}
        gone = [
            postback
            for postback in due
            if postback.id in claimed or self.client.hget(keys.record(postback.id), "state") == b"waiting"
        ]
        for postback in gone:
            postback.place = "quarantine" if postback.suspicion else "waiting"
        return len(gone)

    @rule(
        done_days=st.sampled_from((0.5, 100)),
        dead_days=st.sampled_from((0.5, 100)),
        dead_bytes=st.sampled_from((DEAD_BYTES, 1 << 50)),
    )
    def retain(self, done_days: float, dead_days: float, dead_bytes: int) -> None:
        """Old records go; never one that is still to be sent. Of an account with many dead the oldest go early."""
        day_s = RETAIN_MS / 1000
        may_take = Shares(1 << 50, 1 << 50, dead_bytes, DOCUMENTS_BYTES, BACKLOG_MAX, 0)
        retained = self.scripts.retain(done_days * day_s, dead_days * day_s, 1e9, may_take, 1000)
        taken = {account: self.client.zscore(keys.DEAD_BYTES, account) or 0 for account in ACCOUNTS}
        assert max(taken.values()) <= dead_bytes
        assert set(retained.near) == {name for name in ACCOUNTS if taken[name] > DOCUMENTS_BYTES}
        self.forget_dropped()

    @rule(done=st.booleans(), dead=st.booleans())
    def make_room(self, done: bool, dead: bool) -> None:
        """A broker that is nearly full drops some of what has ended; never one that is still to be sent."""
        self.scripts.make_room(done << 50, dead << 50, 0, 3, 0)
        self.forget_dropped()

    def forget_dropped(self) -> None:
        """Forget what the ledger has dropped; all of it had ended."""
        for postback in self.of("delivered", "cancelled", "skipped", "dead"):
            if not self.client.exists(keys.record(postback.id)):
                del self.known[postback.id]

    @precondition(lambda self: any(postback.id in self.first_ids for postback in self.of("dead")))
    @rule(data=st.data())
    def retract(self, data: st.DataObject) -> None:
        """A postback that came under a taken id turns out to be the one that has it."""
        ids = sorted(postback.id for postback in self.of("dead") if postback.id in self.first_ids)
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
        """Postbacks of an account that is gone for long enough are dead."""
        over = {account for account, at in self.retires.items() if at <= self.now}
        ended, accounts = self.scripts.retire(1000)
        self.come_up()
        waiting = [postback for postback in self.of("waiting") if postback.account in over]
        assert ended == len(waiting)
        assert set(accounts) == {postback.account for postback in waiting}
        for postback in waiting:
            postback.place = "dead"
        for account in over:
            if any(postback.open for postback in self.known.values() if postback.account == account):
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
        """Check that what has begun was allowed to: by its account's rate and by what was open."""
        open_now = self.of("claimed")
        for postback in begun:
            slow, most = self.pacing.get(postback.account, (False, 0))
            if most:
                assert sum(other.account == postback.account for other in open_now) <= most
            if slow:
                next_ms = self.next_ms.get(postback.account, self.now)
                if next_ms > self.now + 2 * MINUTE_MS:  # the clock was put back
                    next_ms = self.now
                assert next_ms < self.now + ahead_ms + 5_000
                self.next_ms[postback.account] = max(self.now, next_ms) + MINUTE_MS
            self.enter(exempt=ahead_ms > 0)
        if self.endpoint_max and begun:
            assert len(open_now) <= self.endpoint_max

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
        ids = sorted({postback.id for postback in (*self.known.values(), *self.messages, *self.intake)})
        chosen = data.draw(st.sampled_from(ids), "id") if ids else "p0000"
        state = self.scripts.cancel(chosen, 86_400, account, search)
        postback = self.known.get(chosen)
        deep = bool(self.client.hexists(keys.record(chosen), "in_lane"))
        if postback is None:
            self.remembered.setdefault(chosen, set()).add(account)
            assert state == "cancelled"
        elif account not in {"", postback.account}:
            assert state == ""
        elif postback.place in {"waiting", "quarantine", "parked"}:
            assert not deep or (search == 1 and postback.place == "waiting")
            postback.place = "left" if deep else "cancelled"
            assert state == "cancelled"
        elif postback.place in {"claimed", "held"}:
            postback.cancel = True
            assert state == "sending"
        else:
            assert state == ("cancelled" if postback.place == "left" else postback.place)

    @precondition(lambda self: self.of("dead"))
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """A dead one is sent again by hand."""
        postback = self.known[
            data.draw(st.sampled_from(sorted(postback.id for postback in self.of("dead"))), "dead")
        ]
        assert self.scripts.replay(postback.id) == "waiting"
        postback.place, postback.failures = "waiting", 0
        if postback.poison:
            postback.place, postback.suspicion, postback.poison = "quarantine", "alone", False

    @precondition(lambda self: any(not postback.stub for postback in self.of("dead")))
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        """A dead one leaves the ledger and is sent again from a copy; while it is there its copy changes nothing."""
        whole = sorted(postback.id for postback in self.of("dead") if not postback.stub)
        postback = self.known[data.draw(st.sampled_from(whole), "dead")]
        record = Ledger(self.client).get(postback.id)
        row = PutBackRow(
            postback.id, postback.account, postback.group, record.origin, record.code, record.url, "http://x:80",
            record.xml, record.created_ms, record.sequence, postback.attempts, record.digest, "0", record.first_id,
            int(postback.poison),
        )  # fmt: skip
        assert self.scripts.put_back(SCHEMA, row, record.attempts) == "dead"
        assert self.scripts.drop(self.epoch_ms(self.now), "", [postback.id]) == 1
        assert self.scripts.put_back(SCHEMA, row, record.attempts) == "waiting"
        postback.place, postback.failures = "waiting", 0
        if postback.poison:
            postback.place, postback.suspicion, postback.poison = "quarantine", "alone", False

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
            {postback.lane for postback in self.of("claimed", "held")}
            or {postback.lane for postback in self.known.values()}
        )
        lane = data.draw(st.sampled_from(lanes), "lane")
        if self.client.ttl(keys.LANE_STATE + lane) > 0:
            self.client.delete(keys.LANE_STATE + lane)

    def some(self, postbacks: list[Postback]) -> st.SearchStrategy[list[str]]:
        ids = [postback.id for postback in postbacks]
        return st.lists(st.sampled_from(ids), unique=True, max_size=4) if ids else st.just([])


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
