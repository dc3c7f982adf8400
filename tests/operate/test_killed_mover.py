"""The process that moves a job is killed at every step: each postback of the set is sent again exactly once all the same."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from recording import end_lease

import postbacks.operate.jobs
from postbacks import keys
from postbacks.history import Query
from postbacks.operate import read_job, start_resend
from postbacks.operate.jobs.job import Counts

HERE = Path(__file__)
#: Points at which it is killed, and the pass: some of them more than once.
POINTS = [
    ("after:freeze-page", 1),
    ("before:job-begin", 1),
    ("before:change_job", 1),
    ("after:change_job", 1),
    ("before:move_job", 1),
    ("after:move_job", 1),
    ("after:move_job", 2),
    ("before:watch_job", 1),
    ("after:watch_job", 1),
]


def test_every_point_of_the_jobs_is_killed_at():
    named = {
        node.args[0].value
        for path in Path(postbacks.operate.jobs.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "reach"
    }
    assert named <= {point for point, _ in POINTS}


def test_killed_at_each_point_each_is_sent_again_once(world):
    env = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    process = subprocess.Popen(
        [sys.executable, str(HERE.with_name("killed_mover.py"))],
        env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        ids = world.unrouted("acme", 120) + world.unrouted("beta", 20)
        world.leave(ids[::4])
        job = start_resend(Query(state="dead"))
        for point, passes in POINTS:
            end_lease(world.client)
            process.stdin.write(f"{point} {passes}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "-9\n", f"{point} was not reached: {read_job(job.id)}"
            world.rig.deliver()
        process.stdin.close()
    end_lease(world.client)
    world.client.script_flush()  # as after the broker's restart
    world.record()
    ended = world.run(job)
    assert (ended.state, ended.total, ended.counts) == ("ended", 140, Counts(moved=140, delivered=140))
    sent = Counter(world.posts("acme") + world.posts("beta"))
    assert sent == Counter(ids)
    assert {len(world.rig.record(one).attempts) for one in ids} == {1}
    assert world.client.zcard(keys.DEAD) == 0
    world.check()
