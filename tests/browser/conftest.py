"""Real Chromium before a real system, one of each for the tests of a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from stage import Stage, running_stage
from watch import Desk, find_chromium, running_browser

from postbacks.web.security import passwords

#: Set by `make web-test`, which installs Chromium: then none is a failure.
IS_REQUIRED = "BROWSER_REQUIRED" in os.environ


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; its event loop would be in the way of tests in other files."""
    path = find_chromium()
    if path is None:
        assert not IS_REQUIRED, "there is no Chromium on the path"
        pytest.skip("there is no Chromium here; make web-test installs it")
    with running_browser(path) as browser:
        yield browser


@pytest.fixture(scope="module")
def stage(browser: Browser, suites_broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """System behind the dashboard."""
    folder: Path = tmp_path_factory.mktemp("stage")
    with pytest.MonkeyPatch.context() as patch:  # hashes that take a sixth of the time
        patch.setattr(passwords, "_N", 2**14)
        patch.setattr(passwords, "_P", 1)
        with running_stage(suites_broker, folder) as stage:
            yield stage


@pytest.fixture
def desk(browser: Browser, stage: Stage) -> Iterator[Desk]:
    """Browser before the dashboard, of which nothing goes wrong in a test."""
    desk = Desk(browser, stage)
    yield desk
    desk.close()
    desk.check()


_FIGURES = pytest.StashKey[list[tuple[str, str, str]]]()


@pytest.fixture
def record_figures(request: pytest.FixtureRequest) -> Callable[[str, str, object], None]:
    """Keep figures for the end of the run."""
    figures = request.config.stash.setdefault(_FIGURES, [])
    return lambda table, name, value: figures.append((table, name, str(value)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figures."""
    for table, name, value in config.stash.get(_FIGURES, []):
        terminalreporter.write_line(f"{table:6} {name:28} {value}")
