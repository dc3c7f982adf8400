"""The suite's own broker and the ways to drive what stands on it."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for name in [name for name in os.environ if name.startswith(("POSTBACKS_", "CELERY_"))]:
    if name != "POSTBACKS_LOCAL_SERVER":  # chooses the server that the suite runs on
        del os.environ[name]  # the suite does not depend on who runs it
# Otherwise each process that the suite starts compiles all modules anew, and each that collects rewrites all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A shell that begins the suite in the background has SIGINT ignored: what the suite starts would not hear Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import forked_processes  # noqa: E402
from helpers import BASE_ENV, Rig  # noqa: E402

from postbacks.devtools.embedded_broker import EmbeddedBroker  # noqa: E402
from postbacks.devtools.receiver import Answer, Receiver  # noqa: E402

_BROKER = pytest.StashKey[EmbeddedBroker]()

#: Files with tests that last longest, the longest first.
_LONGEST_FILES = (
    "promise/test_accepted_means_kept.py",
    "broker/test_sentinel.py",
    "house/test_command_blocks.py",
    "house/test_distribution.py",
    "worker/test_worker_start.py",
    "examples/test_examples.py",
    "containers/test_containers.py",
    "cli/test_cli_processes.py",
    "worker/test_poison.py",
    "worker/test_stopping.py",
    "broker/test_broker_trouble.py",
    "worker/test_killpoints.py",
    "promise/test_restore.py",
    "upgrades/test_upgrades.py",
    "worker/test_rolling_restart.py",
    "typed/test_typing.py",
    "flower_events/test_flower.py",
    "promise/test_six_posts.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each worker of pytest-xdist, which begins with an equal part of the tests, begin with some of the longest.

    Nobody waits at the end of a run for a long test that began last.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1:
        return
    folder = Path(__file__).parent
    parts: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for number, name in enumerate(_LONGEST_FILES):
        parts[number % workers] += [item for item in items if item.path == folder / name]
    long = {item.nodeid for part in parts for item in part}
    rest = [item for item in items if item.nodeid not in long]
    size = len(items) // workers
    for part in parts:
        count = max(0, size - len(part))
        part.extend(rest[:count])
        del rest[:count]
    items[:] = [item for part in parts for item in part] + rest


def pytest_collection_finish() -> None:
    """Leave what was collected out of Python's garbage collections: each would look at the items of the whole suite."""
    gc.collect()
    gc.freeze()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start one broker for the suite's own process, before a test module touches the Celery app."""
    broker = EmbeddedBroker()
    broker.start()
    session.stash[_BROKER] = broker
    os.environ.update(BASE_ENV, POSTBACKS_BROKER_URL=broker.url)
    from postbacks.queue import tick

    tick.TICK_BUDGET_S = 60.0  # a tick in this process takes in all that waits, however busy the machine is


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


@pytest.fixture(scope="module")
def forked() -> Iterator[None]:
    """Workers, beats and commands of the module begin as forks: what is tested is what they do, not how they start."""
    with forked_processes.forking():
        yield


@pytest.fixture
def rig(broker: EmbeddedBroker) -> Iterator[Rig]:
    """Tick and delivering loop in this process."""
    made = Rig(broker)
    yield made
    made.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Receiver that answers 200, on /bad 500."""
    with Receiver(lambda post: Answer(500 if post.path == "/bad" else 200)) as receiver:
        yield receiver


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the run's PostgreSQL, as its superuser."""
    from postgres import shared_server

    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent
    with shared_server(directory) as url:
        yield url


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """URL of an empty database of that server."""
    from postgres import new_database

    with new_database(postgres) as url:
        yield url
