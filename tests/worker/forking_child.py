"""A process that works in children, each of which may die of what it works on.

Reads lines of JSON from standard input, each ``{"do": [steps], "offset_s": …, "kills": account or null,
"lives_s": seconds or null, "posts": POSTs or null}``; for each it forks a child, which takes the steps (tick, deliver,
examine) with the clock moved by the offset, over and over if it has a time to live, and prints the child's end. A life
is counted in the child's own CPU time, so that it gets as far on a busy machine, and may end before with the begin of a
POST, so that something is in flight however quick the machine is.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys

import redis
from helpers import Rig

from postbacks import keys, settings
from postbacks.broker.client import client_for
from postbacks.delivery.loop import DeliveryLoop
from postbacks.queue import intake, tick

tick.TICK_BUDGET_S = 60.0  # a tick takes in all that waits, however busy the machine is


class _Broker:
    """Broker as far as the system in this process needs it."""

    def client(self):
        loaded = settings.load()
        client_for.cache_clear()
        return client_for(loaded.broker_url, loaded.broker_timeout_s)


def make_deadly(account: str) -> None:
    """Whatever sends or takes in a postback of this account dies, as if by a bad pointer."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    begin, decode = DeliveryLoop._begin, intake.decode

    def deadly_begin(self, claimed, profile):
        begin(self, claimed, profile)
        if claimed.account == account:
            die()

    def deadly_decode(raw):
        message = decode(raw)
        if message.args[0] == account + "-on-arrival":
            die()
        return message

    DeliveryLoop._begin, intake.decode = deadly_begin, deadly_decode


def die_with_post(number: int) -> None:
    """Have the process killed when it begins its POST of this number."""
    begin, posts = DeliveryLoop._begin, itertools.count(1)

    def fatal_begin(self, claimed, profile):
        begin(self, claimed, profile)
        if next(posts) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    DeliveryLoop._begin = fatal_begin


def work(order: dict) -> None:
    """Take the steps."""
    if order["posts"]:
        die_with_post(order["posts"])
    if order["kills"]:
        make_deadly(order["kills"])
    rig = Rig(_Broker())
    rig.advance(order["offset_s"])
    if order["lives_s"]:
        signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        signal.setitimer(signal.ITIMER_PROF, order["lives_s"])
    steps = {"tick": rig.tick, "deliver": rig.deliver_lanes, "examine": rig.examine}
    for _ in itertools.count() if order["lives_s"] else range(1):
        for step in order["do"]:
            steps[step]()


def main() -> None:
    """Fork a child for each order; print its exit status."""
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            work(order)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:  # as the keeper of a worker does for its examiner
            with redis.Redis.from_url(os.environ["POSTBACKS_BROKER_URL"]) as client:
                for token in client.zrange(keys.CLAIMERS, 0, -1):
                    client.zadd(keys.CLAIMERS, {token: 0}, xx=True)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
