"""World of a person who is to be forgotten."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from forget_world import World
from helpers import environment
from recording import make_recorder, no_waiting, settle

from postbacks.devtools.receiver import Answer, Receiver
from postbacks.history.engine import reader
from postbacks.settings import load


@pytest.fixture
def world(rig, history_url, monkeypatch) -> Iterator[World]:
    """World over an empty database."""
    no_waiting(monkeypatch)
    monkeypatch.setattr("postbacks.operate.forget.erasure.LOOK_EVERY_S", 0.01)
    monkeypatch.setattr("postbacks.operate.forget.rows.LOOK_EVERY_S", 0.001)
    with (
        environment(POSTBACKS_HISTORY_URL=history_url, POSTBACKS_MAX_RESENDS="0"),
        Receiver(lambda post: Answer(500, post.body) if post.path == "/echo" else Answer(200)) as receiver,
    ):
        rig.settings = load()
        recorder = make_recorder(rig.client, history_url)
        settle(recorder, rig.client)
        yield World(rig, receiver, recorder)
        recorder.close()
        reader(load()).dispose()
