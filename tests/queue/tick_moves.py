"""Moves of ticks: what comes in, what is due, what is taken back and what is dropped."""

from __future__ import annotations

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from model import (
    ACCOUNTS,
    BACKLOG_MAX,
    DEAD_BYTES,
    DOCUMENTS_BYTES,
    GROUPS,
    INTAKE_MS,
    PAUSE_MS,
    RECORD_BYTES,
    RETAIN_MS,
    Model,
    Postback,
)

from postbacks import keys
from postbacks.ledger.digest import fresh_id
from postbacks.ledger.footprint import STUB_BYTES
from postbacks.ledger.record import SCHEMA
from postbacks.ledger.states import ACCEPTED, BACKLOG_FULL, ID_TAKEN, KNOWN, REVOKED, STUB
from postbacks.queue.rows import AcceptRow, ClaimRow, EndedRow, HeldRow
from postbacks.queue.scripts import ALONE_DEATHS_MAX, ALONE_LAPSES_MAX, FEW
from postbacks.queue.shares import Shares

# Multiples of 5 s, all of them: the time that the test itself takes never decides.
moments = st.sampled_from((5_000, 15_000, 30_000, 300_000, 86_400_000))


class TickMoves(Model):
    """Moves of ticks, and of the applications that send."""

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
