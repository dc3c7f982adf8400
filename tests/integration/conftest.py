"""Fixtures that several modules of the integration tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postbacks.devtools.receiver import Answer, Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Answers 200, on /bad 500."""
    with Receiver(lambda post: Answer(500 if post.path == "/bad" else 200)) as receiver:
        yield receiver
