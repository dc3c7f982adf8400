"""World of one cause."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cause_world import World
from helpers import Rig


@pytest.fixture
def world(rig: Rig) -> Iterator[World]:
    """The world of one cause."""
    with World(rig) as world:
        yield world
