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
#: Property of a test's report.
_FIGURE = "figure"


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


@pytest.fixture
def record_figures(record_property) -> Callable[[str, str, object], None]:
    """Keep figures for the end of the run."""
    return lambda table, name, value: record_property(_FIGURE, f"{table:6} {name:28} {value}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures."""
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for name, value in report.user_properties:
            if name == _FIGURE and report.when == "call":
                terminalreporter.write_line(value)
