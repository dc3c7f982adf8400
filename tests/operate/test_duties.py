"""Duties of the process that runs history: when they are done, and what a fault of one does."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from postbacks.errors import BrokerUnreachable
from postbacks.operate import duties
from postbacks.operate.duties import Duties


class CountingDuty:
    """Duty that counts its turns, and fails in those that it is told to."""

    name = "counting"

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.turns = 0
        self.done = threading.Event()

    def turn(self) -> float:
        """Count a turn."""
        self.turns += 1
        if self.errors:
            raise self.errors.pop(0)
        self.done.set()
        return 0.01


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Look again at once."""
    monkeypatch.setattr(duties, "EVERY_S", 0.01)


def test_a_duty_rests_while_the_recorder_does_not_work():
    """Another process's recorder works then, and that process does the duties."""
    recorder, duty = SimpleNamespace(works=False), CountingDuty()
    with Duties(recorder, [duty]):
        assert not duty.done.wait(0.1)
        recorder.works = True
        assert duty.done.wait(60)


@pytest.mark.parametrize("error", [BrokerUnreachable("It does not answer."), ValueError("a bug")])
def test_a_failure_ends_neither_a_duty_nor_the_others(error):
    """A broker that does not answer, and a fault of ours, are tried again."""
    failing, other = CountingDuty(error, error), CountingDuty()
    with Duties(SimpleNamespace(works=True), [failing, other]):
        assert failing.done.wait(60)
        assert other.done.wait(60)
    assert failing.turns >= 3
