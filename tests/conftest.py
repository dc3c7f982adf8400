"""The suite's own broker and the ways to drive what stands on it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

for name in [name for name in os.environ if name.startswith(("POSTBACKS_", "CELERY_"))]:
    del os.environ[name]  # the suite does not depend on who runs it

from postbacks.local import EmbeddedBroker, LocalStack  # noqa: E402

#: What every process of the suite needs; receivers are on loopback.
BASE_ENV = {"POSTBACKS_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128"}


@pytest.fixture(scope="session")
def session_broker() -> Iterator[EmbeddedBroker]:
    """One broker for the suite's own process, whose Celery app keeps its URL."""
    with EmbeddedBroker() as broker:
        os.environ["POSTBACKS_BROKER_URL"] = broker.url
        os.environ.update(BASE_ENV)
        from postbacks import settings

        settings.load.cache_clear()
        yield broker


@pytest.fixture
def broker(session_broker: EmbeddedBroker) -> Iterator[EmbeddedBroker]:
    """The suite's broker, empty. It is ours alone, so emptying it hurts nobody."""
    client = session_broker.client()
    client.flushdb()
    yield session_broker
    client.close()


@pytest.fixture
def own_broker() -> Iterator[EmbeddedBroker]:
    """A broker that the test may kill."""
    with EmbeddedBroker() as broker:
        yield broker


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set POSTBACKS_ variables for this process and read the settings anew."""
    from postbacks import settings

    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    settings.load.cache_clear()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        settings.load.cache_clear()


@contextmanager
def running(
    broker: EmbeddedBroker,
    log_dir: Path,
    *,
    pool: str = "threads",
    workers: int = 1,
    concurrency: int = 4,
    env: Mapping[str, str] | None = None,
) -> Iterator[LocalStack]:
    """Real workers and a real beat on a broker; their logs are shown when the test fails."""
    folder = log_dir / f"logs-{uuid.uuid4().hex[:6]}"
    folder.mkdir()
    stack = LocalStack(
        broker,
        workers=workers,
        pool=pool,
        concurrency=concurrency,
        env={**BASE_ENV, **(env or {})},
        log_dir=folder,
    )
    try:
        with stack:
            yield stack
    except BaseException:
        for log in sorted(folder.iterdir()):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}")
        raise
