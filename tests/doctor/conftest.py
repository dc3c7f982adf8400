"""Ward of the doctor, who looks twice without a pause."""

from __future__ import annotations

import pytest
from ward import Ward

from postbacks.devtools.receiver import dead_port
from postbacks.doctor import doctor as rounds


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    """A broker at rest needs no pause between two looks."""
    monkeypatch.setattr(rounds, "PAUSE_S", 0.0)


@pytest.fixture
def ward(rig):
    with dead_port() as port:
        yield Ward(rig, port)
