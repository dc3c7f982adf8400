"""A process that runs history and is killed at a named point of its jobs, again and again.

Reads lines from standard input, each a point and the pass at which it kills; for each it forks a child, which records and moves
until it is killed, and prints how that ended. The parent stays single-threaded, so that forking is safe, and imports once.
"""

from __future__ import annotations

import os
import sys

from recording import make_recorder

from postbacks import killpoints, settings
from postbacks.broker.client import client
from postbacks.history import recorder as recorder_module
from postbacks.operate.jobs.mover import Mover

recorder_module.GATHER_S = 0.0

#: Turns after which a point that was not reached is told.
TURNS = 200


def live(point: str, passes: int) -> None:
    """Record and move until the point is reached."""
    loaded = settings.load()
    recorder = make_recorder(client(), loaded.history_url)
    while not recorder.works:
        recorder.turn()
    mover = Mover(recorder, client(), loaded)
    killpoints.arm(point, passes)
    for _ in range(TURNS):
        recorder.turn()
        mover.turn()


for line in sys.stdin:
    asked_point, asked_passes = line.split()
    child = os.fork()
    if child == 0:
        live(asked_point, int(asked_passes))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
