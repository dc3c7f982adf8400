"""The retry rule as a table: Celery's own retry, asked for a decision and nothing else."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from helpers import environment

from postbacks import send_postback
from postbacks.delivery.claims import ClaimedPostback
from postbacks.delivery.counters import LoopCounters
from postbacks.delivery.results import ResultBatch
from postbacks.retry import Decision
from postbacks.settings import Settings
from postbacks.tasks import decide
from postbacks.transport.outcomes import OUTCOMES, Outcome


def failing(failures: int, number: int | None = None, postback_id: str = "p") -> ClaimedPostback:
    """A postback with so many failures before the one that is decided on."""
    return ClaimedPostback(
        id=postback_id,
        lane="acme/mo",
        number=failures + 1 if number is None else number,
        failures=failures,
        account="acme",
        origin="SMS_MO",
        code="N211",
        created_ms=1,
        sequence=1,
        url="http://a.example/",
        xml=b"<POSTBACK/>",
        version="",
        url_source="0",
        at_ms=1,
        begun=True,
    )


#: resends allowed, countdown in seconds, failures so far, countdown of the resend or None for dead
POLICY = [
    (5, 300, 0, 300),
    (5, 300, 1, 300),
    (5, 300, 2, 300),
    (5, 300, 3, 300),
    (5, 300, 4, 300),
    (5, 300, 5, None),
    (5, 300, 6, None),
    (5, 300, 500, None),
    (0, 300, 0, None),
    (1, 60, 0, 60),
    (1, 60, 1, None),
    (5, 0, 4, 0),
    (5, 0, 5, None),
    (5, 0.25, 0, 0.25),
    (1000, 86_400, 999, 86_400),
    (1000, 86_400, 1000, None),
]


@pytest.mark.parametrize(("resends", "countdown_s", "failures", "expected"), POLICY)
def test_a_failed_postback_is_parked_for_the_countdown_until_the_cap_and_then_dead(
    broker, resends, countdown_s, failures, expected
):
    """The countdown is always the same; a countdown of 0 is one."""
    values = {"POSTBACKS_MAX_RESENDS": str(resends), "POSTBACKS_RETRY_COUNTDOWN_S": str(countdown_s)}
    with environment(**values):
        decision = decide(failing(failures))
    assert (decision.parked, decision.countdown_s if decision.parked else None) == (
        expected is not None,
        expected,
    )
    assert broker.client().dbsize() == 0  # a decision sends no message


def test_by_default_there_are_five_resends_300_seconds_apart(broker):
    """The promise: 1 first send and 5 resends."""
    decisions = [decide(failing(failures)) for failures in range(7)]
    assert [decision.parked for decision in decisions] == [True] * 5 + [False] * 2
    assert {decision.countdown_s for decision in decisions[:5]} == {300.0}


@pytest.mark.parametrize("outcome", sorted(set(OUTCOMES) - {"delivered"}))
def test_every_failure_is_resent_alike(outcome):
    """Only 200 counts: the rule is asked about every other outcome, and is not told which it was."""
    asked: list[ClaimedPostback] = []
    counters = LoopCounters(SimpleNamespace(connections=0, renewals=0))
    rule = lambda *postback: asked.extend(postback) or Decision(parked=True, countdown_s=300)  # noqa: E731
    results = ResultBatch("token", Settings(), rule, counters)
    postback = failing(0)
    results.add(postback, Outcome(outcome), 0)
    assert results.decide() == [("acme/mo", "failed")]
    assert asked == [postback]


def test_failures_count_and_not_posts(broker):
    """A POST whose end nobody saw has a number, but uses up no resend."""
    assert decide(failing(0, number=9)).parked
    assert not decide(failing(5, number=6)).parked


def test_decisions_of_many_threads_at_once_do_not_mix(broker):
    """Each thread gets the decision on its own postback."""
    together = threading.Barrier(8)

    def one(number: int) -> list[bool]:
        together.wait(60)
        return [decide(failing((number + turn) % 8, postback_id=f"{number}-{turn}")).parked
                for turn in range(200)]  # fmt: skip

    with ThreadPoolExecutor(8) as pool:
        decided = list(pool.map(one, range(8)))
    assert decided == [[(number + turn) % 8 < 5 for turn in range(200)] for number in range(8)]


def test_a_decision_leaves_the_task_as_it_was(broker):
    """Afterwards a call in the same thread sends a message again, and no request is left on the stack."""
    before = send_postback.request_stack.top
    for failures in (0, 5):
        decide(failing(failures))
    assert send_postback.request_stack.top is before
    event = {"ORIGIN": "SUB", "CODE": "N301", "MOBILE": "15552312102", "CAMPAIGNID": "1"}
    send_postback.delay("acme", event)
    assert broker.client().llen("postbacks") == 1


def test_a_decision_leaves_nothing_for_the_collector(broker):
    """The objects that Celery makes for a retry go at once: the collector comes so seldom that it would be
    megabytes.
    """
    for _ in range(2):  # what is made once is there
        decide(failing(0))
        decide(failing(5))
    gc.collect()
    gc.disable()
    try:
        for failures in (0, 5) * 50:
            decide(failing(failures))
        assert gc.collect() < 50
    finally:
        gc.enable()
