"""The world in which every address is this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_urls.forms import ZONE


class World:
    """A process in a network of its own (see ``world.py``), and what happens to POSTs there."""

    def __init__(self) -> None:
        self._posted: dict[str, dict[str, Any]] = {}
        as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        self._process = subprocess.Popen(
            [
                "unshare",
                *as_root,
                "--net",
                "--mount",
                sys.executable,
                str(Path(__file__).with_name("netns_world.py")),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("POSTBACKS_")},
        )

    def ask(self, do: str, **job: Any) -> dict[str, Any]:
        """Have a job done there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **job}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        assert answer, "no namespaces here: run as root (CAP_SYS_ADMIN), or allow user namespaces"
        return json.loads(answer)

    def post(self, url: str, **job: Any) -> dict[str, Any]:
        """POST to a URL there; returns ``early``, ``outcomes``, ``arrived`` and ``asked``.

        The same POST twice is made once.
        """
        wanted = json.dumps({"url": url, "zone": ZONE, **job})
        if wanted not in self._posted:
            self._posted[wanted] = self.ask("post", **json.loads(wanted))
        return self._posted[wanted]

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """World for the tests of a module."""
    made = World()
    yield made
    made.close()
