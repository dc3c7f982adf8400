"""The suite's own broker and the ways to drive what stands on it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

for name in [name for name in os.environ if name.startswith(("POSTBACKS_", "CELERY_"))]:
    del os.environ[name]  # the suite does not depend on who runs it

from helpers import BASE_ENV, Rig  # noqa: E402

from postbacks.local import EmbeddedBroker  # noqa: E402

_BROKER = pytest.StashKey[EmbeddedBroker]()
#: Where the longest tests stand, half a minute and more each: begun last, they would run alone at the end.
LONGEST = (
    "integration/test_command_blocks.py::test_the_",
    "integration/test_crash.py::test_whatever_dies",
    "integration/test_model.py",
    "faults/test_poison.py::test_a_real_worker",
    "containers/test_containers.py",
    "integration/test_broker_rights.py::test_everything",
    "integration/test_presence.py::test_whoever",
    "integration/test_sentinel.py::test_a_primary",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest tests at the beginning of each process's part (``--dist worksteal`` deals equal parts in order)."""
    longest = [item for item in items if item.nodeid.removeprefix("tests/").startswith(LONGEST)]
    others = [item for item in items if item not in set(longest)]
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    part = len(items) // processes
    items.clear()
    for number in range(processes):
        begin = longest[number::processes]
        end = others[: part - len(begin)] if number < processes - 1 else others
        del others[: len(end)]
        items += [*begin, *end]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start one broker for the suite's own process, before a test module touches the Celery app."""
    broker = EmbeddedBroker()
    broker.start()
    session.stash[_BROKER] = broker
    os.environ.update(BASE_ENV, POSTBACKS_BROKER_URL=broker.url)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop it."""
    if _BROKER in session.stash:
        session.stash[_BROKER].stop()


@pytest.fixture(scope="session")
def suites_broker(request: pytest.FixtureRequest) -> EmbeddedBroker:
    """The suite's broker, with whatever the tests before have left in it."""
    return request.session.stash[_BROKER]


@pytest.fixture
def broker(suites_broker: EmbeddedBroker) -> EmbeddedBroker:
    """The suite's broker, empty. It is ours alone, so emptying it hurts nobody."""
    with suites_broker.client() as client:
        client.flushdb()
    return suites_broker


@pytest.fixture
def own_broker() -> Iterator[EmbeddedBroker]:
    """A broker that the test may kill."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def rig(broker: EmbeddedBroker) -> Iterator[Rig]:
    """Tick and delivering loop in this process."""
    made = Rig(broker)
    yield made
    made.close()
