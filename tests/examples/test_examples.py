"""The examples in Django, FastAPI and Flask: their tests run with the suite, without the stack of ``make examples``."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers import environment

ROOT = Path(__file__).parents[2]
#: Each example, and the plugins of pytest that its tests want beside ours.
EXAMPLES = {"django": ["pytest_django.plugin"], "fastapi": [], "flask": []}


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_tests_of_an_example_pass(example, tmp_path):
    """All that need no process of their own, warnings being errors here."""
    plugins = [f"-p{name}" for name in ("postbacks.testing.plugin", *EXAMPLES[example])]
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("POSTBACKS_", "PYTEST_"))
    }
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'pytest'}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *plugins, "-k", "not whole_way"],
        cwd=ROOT / "examples" / example,
        env={**inherited, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d passed, 1 deselected", done.stdout), done.stdout


def test_the_examples_are_those_that_make_runs_and_stand_on_what_the_suite_has():
    """Make makes an environment for each; here all share that of the suite."""
    folders = {path.parent.name for path in (ROOT / "examples").glob("*/requirements.txt")}
    makes = re.search(r"^EXAMPLES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert folders == EXAMPLES.keys() == set(makes[1].split())

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    known = {
        re.split(r"\s*#", line)[0].strip()
        for line in (*project["dependencies"], *extras["dev"], *extras["history"])
    }
    for folder in folders:
        lines = (ROOT / "examples" / folder / "requirements.txt").read_text().splitlines()
        wanted = {line for line in lines if line and not line.startswith(("#", "postbacks[local]"))}
        assert wanted <= known, folder


def test_a_broker_that_hangs_does_not_hang_the_event_loop(monkeypatch, tmp_path):
    """FastAPI answers others while a call of ours waits; once that fails, it answers 503 and says when to try again."""
    import httpx2

    monkeypatch.syspath_prepend(ROOT / "examples" / "fastapi")
    create_app = importlib.import_module("subscriptions.app").create_app

    async def subscribe(broker: socket.socket):
        app = create_app(f"sqlite+aiosqlite:///{tmp_path}/subscriptions.db")
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://api.example") as client,
        ):
            waiting = asyncio.create_task(client.put("/accounts/acme/campaigns/42/subscribers/15552312102"))
            connection, _ = await asyncio.to_thread(broker.accept)
            health = await client.get("/health")
            with connection:
                has_given_up = is_closed(connection)
            broker.close()  # so that the call need not wait for its end
            return health, has_given_up, await waiting

    with socket.create_server(("127.0.0.1", 0)) as broker:  # takes connections, and never answers
        broker.settimeout(60)
        url = f"redis://127.0.0.1:{broker.getsockname()[1]}/0"
        with environment(POSTBACKS_BROKER_URL=url, POSTBACKS_BROKER_TIMEOUT_S="10"):
            health, has_given_up, answer = asyncio.run(subscribe(broker))
    assert health.status_code == 200
    assert not has_given_up  # as it would have, had the answer about health waited for it
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


def is_closed(connection: socket.socket) -> bool:
    """Tell whether the other end has closed a connection; reads what it has sent."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    return True
