"""Results on their way into the ledger: which are committed first, and how many together."""

from __future__ import annotations

from types import SimpleNamespace

from postbacks.delivery.claims import ClaimedPostback
from postbacks.delivery.counters import LoopCounters, WorkerCounters
from postbacks.delivery.results import COMMIT_BATCH, SHARED_BATCH, ResultBatch
from postbacks.queue.counter_names import CONNECTIONS, RENEWALS
from postbacks.retry import Decision
from postbacks.settings import Settings
from postbacks.transport.outcomes import Outcome

OWN = Outcome("status", 500, 0.1)
SHARED = Outcome("connect_timeout", None, 10.0, shared=True)


def held(postback_id: str) -> ClaimedPostback:
    """Return a held postback of the lane acme/mt."""
    return ClaimedPostback(postback_id, "acme/mt", 1, 0, "acme", "SMS_MT", "N202", "http://192.0.2.1:80", 0)


def test_ten_thousand_shared_time_outs_let_an_answer_of_ones_own_pass():
    """Shared ones fill half a batch at most; what had a POST of its own is in the next one, and room is left."""
    counters = LoopCounters(SimpleNamespace(connections=0, renewals=0))
    results = ResultBatch("loop", Settings(), lambda *_: Decision(parked=True, countdown_s=300), counters)
    for number in range(10_000):
        results.add(held(f"shared-{number}"), SHARED, 0)
    results.decide()
    assert results.free() == COMMIT_BATCH - SHARED_BATCH
    results.add(held("own"), OWN, 0)
    results.decide()
    call = results.to_call()
    assert "own" in call.arguments
    assert sum(str(argument).startswith("shared-") for argument in call.arguments) == SHARED_BATCH
    results.committed([(b"parked", 0)] * (SHARED_BATCH + 1))
    assert results
    rounds = 0
    while results:
        results.decide()
        sent = sum(str(argument).startswith("shared-") for argument in results.to_call().arguments)
        results.committed([(b"parked", 0)] * sent)
        rounds += 1
    assert rounds == 10_000 / SHARED_BATCH - 1


def test_connections_and_renewals_are_counted_once():
    """The transport counts on over all batches; what is in the broker and in the worker's own counts is not added again."""
    curl, worker = SimpleNamespace(connections=3, renewals=1), WorkerCounters(1)
    counters = LoopCounters(curl, worker)
    curl.connections, curl.renewals = 5, 2
    for _ in range(2):  # committed only at the second try
        counts = counters.count([])
        assert counts == {CONNECTIONS: 2, RENEWALS: 1}
    counters.committed(counts)
    assert counters.count([]) == {}
    assert (worker.total()[CONNECTIONS], worker.total()[RENEWALS]) == (2, 1)
