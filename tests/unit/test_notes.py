"""Outcomes on their way into the ledger: which leave first, and how many together."""

from __future__ import annotations

from types import SimpleNamespace

from postbacks.delivery.claims import Held
from postbacks.delivery.counters import LoopCounters, WorkerCounters
from postbacks.delivery.results import NOTE_BATCH, SHARED_BATCH, Decision, ResultBatch
from postbacks.queue.counter_names import CONNECTIONS, RENEWALS
from postbacks.settings import Settings
from postbacks.transport.outcomes import Outcome

OWN = Outcome("status", 500, 0.1)
SHARED = Outcome("connect_timeout", None, 10.0, shared=True)


def held(name: str) -> Held:
    """A postback of the lane acme/mt."""
    return Held(name, "acme/mt", "http://192.0.2.1:80", 0, 0, "acme", "SMS_MT", "N202", 0)


def test_ten_thousand_shared_time_outs_let_an_answer_of_ones_own_pass():
    """Shared ones fill half a batch at most; what had a POST of its own is in the next one, and room is left."""
    tally = LoopCounters(SimpleNamespace(connections=0, renewals=0))
    notes = ResultBatch(None, "token", Settings(), lambda *_: Decision(parked=True, countdown_s=300), tally)
    for number in range(10_000):
        notes.add(held(f"shared-{number}"), SHARED, 1, 0)
    notes.decide()
    assert notes.room() == NOTE_BATCH - SHARED_BATCH
    notes.add(held("own"), OWN, 1, 0)
    notes.decide()
    call = notes.call()
    assert "own" in call.arguments
    assert sum(str(argument).startswith("shared-") for argument in call.arguments) == SHARED_BATCH
    notes.heard([(b"parked", 0)] * (SHARED_BATCH + 1))
    assert notes
    rounds = 0
    while notes:
        notes.decide()
        sent = sum(str(argument).startswith("shared-") for argument in notes.call().arguments)
        notes.heard([(b"parked", 0)] * sent)
        rounds += 1
    assert rounds == 10_000 / SHARED_BATCH - 1


def test_connections_and_renewals_are_counted_once():
    """The transport counts on over all batches; what is in the broker and in the worker's own counts is not added again."""
    adapter, shared = SimpleNamespace(connections=3, renewals=1), WorkerCounters(1)
    tally = LoopCounters(adapter, shared)
    adapter.connections, adapter.renewals = 5, 2
    for _ in range(2):  # noted only at the second try
        counts = tally.of([])
        assert counts == {CONNECTIONS: 2, RENEWALS: 1}
    tally.noted(counts)
    assert tally.of([]) == {}
    assert (shared.total()[CONNECTIONS], shared.total()[RENEWALS]) == (2, 1)
