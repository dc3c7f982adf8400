"""Moves of delivering loops and examiners, their deaths among them, and the limits that they keep."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from model import (
    ACCOUNTS,
    COUNTDOWN_MS,
    EXAMINERS,
    GROUPS,
    KEEP_MS,
    LEASE_MS,
    MINUTE_MS,
    PAUSE_MS,
    STILL_MS,
    TOKENS,
    Postback,
    Start,
)
from tick_moves import TickMoves

from postbacks import keys
from postbacks.queue.rows import AttemptRow, ClaimRow, EndedRow, HeldRow
from postbacks.queue.scripts import FEW, claim_call


class LoopMoves(TickMoves):
    """Moves of delivering loops, after those of the ticks."""

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
        assert {account.decode() for account in still} <= set(self.gone) - self.in_force()
        for row in ended:
            postback = self.known[row.id.decode()]
            assert (postback.place, postback.account in self.off, row.state) == ("waiting", True, b"skipped")
            postback.place = "skipped"
        sent = {self.known[row.id.decode()].account for row in (*begun, *held)}
        assert not sent & (self.off | set(self.gone) | self.in_force())
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
        assert not {postback.account for postback in chosen} & (self.off | set(self.gone) | self.in_force())
        for postback in self.of("quarantine"):
            state = self.client.hget(keys.record(postback.id), "state")
            if state == b"skipped":
                assert postback.account in self.off
                postback.place = "skipped"
            elif state == b"parked":
                gone_ms = self.gone.get(postback.account)
                assert (
                    postback.account in self.in_force() if gone_ms is None else self.now - gone_ms < KEEP_MS
                )
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
        moved_of = {self.known[raw.decode()].account for raw in moved}
        assert moved_of <= self.off | set(self.gone) | self.in_force()
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
        assert not {postback.account for postback in began} & self.in_force()
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

    def some(self, postbacks: list[Postback]) -> st.SearchStrategy[list[str]]:
        ids = [postback.id for postback in postbacks]
        return st.lists(st.sampled_from(ids), unique=True, max_size=4) if ids else st.just([])
