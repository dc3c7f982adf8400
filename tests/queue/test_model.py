"""Moves against the model: any sequence of them, any death between them, and every postback where it must be.

Hypothesis makes up the sequences and shrinks one that fails to its core. The broker is a real one.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from loop_moves import LoopMoves
from model import ACCOUNTS, EXAMINERS, KEEP_MS, STILL_MS, TOKENS
from tick_moves import moments

from postbacks import keys
from postbacks.accounts import Account
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.record import SCHEMA
from postbacks.queue import pauses
from postbacks.queue.pauses import details
from postbacks.queue.routes import row_of
from postbacks.queue.rows import PutBackRow


class Moves(LoopMoves):
    """All moves, in any order: those of ticks and loops, of accounts and of people, and of the clock."""

    def teardown(self) -> None:
        """Whatever happened: an hour and a tick later nothing is held by anybody, and nothing is lost."""
        self.scripts.clock_offset_ms += 3_600_000
        self.release(1000)
        for _ in range(len(TOKENS) + len(EXAMINERS) + 1):
            self.reap(1000)
        self.everything_holds()
        assert not self.client.exists(keys.CLAIMERS)
        self.client.close()

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
                self.paused.pop(account, None)

    @rule(
        account=st.sampled_from(ACCOUNTS), ms=st.none() | moments, reason=st.sampled_from(("", "they move"))
    )
    def pause(self, account: str, ms: int | None, reason: str) -> None:
        """An account is paused, or its pause gets another end and reason."""
        if not self.client.hexists(keys.ROUTES, account):
            assert self.scripts.pause(account, None, details(reason, "ann")) is None
            self.account_changes(account, "on")
        ends_ms = None if ms is None else self.epoch_ms(self.now + ms)
        assert self.scripts.pause(account, ends_ms, details(reason, "ann"))
        self.paused[account] = None if ms is None else self.now + ms
        assert pauses.read(self.client, [account])[account].reason == reason

    @rule(account=st.sampled_from(ACCOUNTS))
    def resume(self, account: str) -> None:
        """An account goes on."""
        assert self.scripts.resume(account) == ([account] if account in self.paused else [])
        self.paused.pop(account, None)

    @rule()
    def end_pauses(self) -> None:
        """A tick ends the pauses whose time has come."""
        over = set(self.paused) - self.in_force()
        assert set(self.scripts.resume()) == over
        for account in over:
            del self.paused[account]

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
        """A dead one is sent again by hand; one that was erased stays dead."""
        postback = self.known[
            data.draw(st.sampled_from(sorted(postback.id for postback in self.of("dead"))), "dead")
        ]
        if postback.forgotten:
            assert self.scripts.replay(postback.id) == "dead"
            return
        assert self.scripts.replay(postback.id) == "waiting"
        postback.place, postback.failures = "waiting", 0
        if postback.poison:
            postback.place, postback.suspicion, postback.poison = "quarantine", "alone", False

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        """A person is forgotten: what has ended loses its document, once; all else is left alone."""
        chosen = data.draw(
            st.lists(st.sampled_from(sorted(self.known)), min_size=1, max_size=3, unique=True), "ids"
        )
        ended = [
            postback
            for postback in self.of("delivered", "dead", "skipped", "cancelled", "left")
            if postback.id in chosen and not postback.forgotten
        ]
        assert self.scripts.erase("request", chosen) == len(ended)
        for postback in ended:
            postback.forgotten = True
            assert not {b"xml", b"raw"} & self.client.hgetall(keys.record(postback.id)).keys()

    @precondition(lambda self: any(not (postback.stub or postback.forgotten) for postback in self.of("dead")))
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        """A dead one leaves the ledger and is sent again from a copy; while it is there its copy changes nothing."""
        whole = sorted(
            postback.id for postback in self.of("dead") if not (postback.stub or postback.forgotten)
        )
        postback = self.known[data.draw(st.sampled_from(whole), "dead")]
        record = Ledger(self.client).get(postback.id)
        row = PutBackRow(
            postback.id, postback.account, postback.group, record.origin, record.code, record.url, "http://x:80",
            record.xml, record.created_ms, record.sequence, postback.attempts, record.digest, "0", record.first_id,
            int(postback.poison),
        )  # fmt: skip
        assert self.scripts.put_back(SCHEMA, row, record.attempts) == "dead"
        # whenever it was given up: the clock may have been put back since
        assert self.scripts.drop(2**53, "", [postback.id]) == 1
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


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
def test_any_sequence_of_moves_and_deaths_leaves_every_postback_in_its_place():
    """The model and the broker agree after each of a thousand steps."""
    with EmbeddedBroker(config={"appendonly": "no"}) as broker:
        Moves.broker = broker
        run_state_machine_as_test(
            Moves,
            settings=settings(
                max_examples=24,
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
