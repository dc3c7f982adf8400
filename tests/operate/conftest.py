"""A system in this process whose history is recorded and whose jobs are moved, on a file and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from jobs import World
from recording import no_waiting

from postbacks.devtools.receiver import Answer, Receiver
from postbacks.history.engine import reader


@pytest.fixture
def history_url(request: pytest.FixtureRequest, tmp_path) -> Iterator[str]:
    """URL of an empty database: SQLite's, or PostgreSQL's where a test asks for it by ``indirect``."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield f"sqlite:///{tmp_path}/history.db"
        return
    yield request.getfixturevalue("postgres_url")


@pytest.fixture
def world(rig, history_url, monkeypatch) -> Iterator[World]:
    """Accounts whose receiver refuses what is sent to them until a test says otherwise."""
    no_waiting(monkeypatch)
    for name, value in {
        "POSTBACKS_HISTORY_URL": history_url,
        "POSTBACKS_MAX_RESENDS": "0",
        "POSTBACKS_USER": "ann",
    }.items():
        monkeypatch.setenv(name, value)
    with Receiver(lambda post: Answer(made.answers.get(post.path, 200), b"oops")) as receiver:
        made = World(rig, history_url, receiver)
        yield made
        made.close()
        reader(made.settings).dispose()
