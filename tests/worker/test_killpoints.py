"""Killed at every named step of the way, one after the other: nothing is lost, nothing stands in two places."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from helpers import BASE_ENV, Rig, check_places, environment

import postbacks
from postbacks.devtools.receiver import Answer, Received, Receiver, dead_port

ROOT = Path(postbacks.__file__).parent
MOVES = sorted(
    path.name[:-4]
    for path in files("postbacks.queue").iterdir()
    # those of jobs: tests/operate/test_killed_mover.py
    if path.name.endswith(".lua") and not path.name.startswith("_") and not path.name.endswith("_job.lua")
)
ENV = {
    "POSTBACKS_MAX_RESENDS": "2",
    "POSTBACKS_CLAIM_LEASE_S": "0.3",
    "POSTBACKS_INTAKE_LEASE_S": "2",
    "POSTBACKS_PROBE_CLAIMS": "10",
}


def named_points() -> list[str]:
    """Every point on the way of a postback that the code names, and one before and after each move."""
    found = []
    # beside that way: tests/history/test_recorder.py, tests/operate
    aside = {*(ROOT / "history").glob("*.py"), *(ROOT / "operate").rglob("*.py")}
    for path in sorted({*ROOT.rglob("*.py")} - aside):
        text = path.read_text()
        if "reach(" not in text:  # most: parsing all takes a second of each process that collects this
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "reach":
                (argument,) = node.args
                if isinstance(argument, ast.Constant):
                    found.append(argument.value)
                else:
                    assert path.name in {"scripts.py", "pipeline.py"}, (
                        f"{path}: a point's name must be written out"
                    )
    return sorted(found) + [f"{when}:{move}" for move in MOVES for when in ("before", "after")]


class Scenario:
    """The process that is killed again and again."""

    def __init__(self, url: str) -> None:
        env = {**os.environ, **BASE_ENV, **ENV, "POSTBACKS_BROKER_URL": url}
        env["PYTHONPATH"] = str(Path(__file__).parents[1])
        script = Path(__file__).with_name("killpoint_scenario.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, **order: object) -> tuple[set[str], int]:
        """The ids whose calls returned, and how the child ended."""
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        accepted: set[str] = set()
        while True:
            line = self._process.stdout.readline()
            assert line, "the scenario's parent died"
            if line.startswith("end "):
                return accepted, int(line.split()[1])
            accepted |= set(line.split())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(90)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def world(suites_broker):
    """The scenario, its receiver and its dead port."""

    def answer(post: Received) -> Answer:
        return Answer(500) if post.path == "/bad" and post.attempt == 1 else Answer()

    with dead_port() as port, Receiver(answer) as receiver:
        scenario = Scenario(suites_broker.url)
        yield suites_broker, scenario, receiver, port
        scenario.close()


@pytest.mark.parametrize("name", named_points())
def test_killed_at_this_point_nothing_is_lost(world, name):
    """Accepted postbacks are delivered, dead with their story, or cancelled; every id stands in one place."""
    broker, scenario, receiver, port = world
    with broker.client() as client:
        client.flushdb()
    accepted, end = scenario.run(point=name, passes=1, url=receiver.url().rstrip("/"), dead_port=port)
    assert end == -9, f"the point {name} was not reached"
    with environment(**ENV):
        rig = Rig(broker)
        rig.advance(3600)  # every lease has ended
        rig.scripts.resume("good")  # it may have died in the pause
        for _ in range(12):
            while rig.tick().more:
                pass
            rig.deliver()
            rig.advance(700)
        ends = check_places(rig.client)
        records = {one: rig.record(one) for one in accepted}
        rig.close()
    assert set(ends) <= {"done", "dead"}, "something is still on its way"
    arrived = receiver.by_id()
    for one, record in records.items():
        assert record.state in {"delivered", "dead", "cancelled"}
        if record.state == "delivered":
            assert one in arrived
        if record.account == "hole":
            assert (record.state, record.failures) == ("dead", 3)
    numbers = [attempt.number for record in records.values() for attempt in record.attempts]
    assert all(number >= 1 for number in numbers)
