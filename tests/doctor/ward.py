"""System with a postback of every kind, and the doctor who examines it in this process."""

from __future__ import annotations

import json

from click.testing import CliRunner
from events import MT
from helpers import environment, set_account

from postbacks import keys, send_postback, send_postbacks
from postbacks.cli import main
from postbacks.devtools.receiver import Receiver
from postbacks.doctor import Doctor
from postbacks.history.feed import Feed

LANE = "acme/mt"


def doctor_of(rig, **options):
    """A doctor who looks twice without a pause."""
    return Doctor(rig.scripts, rig.settings, pause_s=0, **options)


def wrong(report):
    """Names of what is wrong."""
    return {result.check.name for result in report.wrong}


def call(*args, url=None):
    """Call the command in this process."""
    other = {"POSTBACKS_BROKER_URL": url, "POSTBACKS_BROKER_TIMEOUT_S": "0.5"} if url else {}
    with environment(**other):
        return CliRunner().invoke(main, ("doctor", *args), prog_name="postbacks")


class Ward:
    """A system with a postback of every kind; each id by its state."""

    def __init__(self, rig, port):
        self.rig, self.client = rig, rig.client
        set_account("acme", url=f"http://127.0.0.1:{port}/")
        self.parked = send_postback.apply_async(("acme", MT), countdown=3600).id
        self.dead = "dead-1"
        first = send_postback.delay("acme", MT).id
        rig.tick()
        rig.client.hset(keys.LANE_STATE + LANE, mapping={"failing": 0})
        with Receiver() as receiver:
            self.done = send_postback.apply_async(("acme", MT), {"url": receiver.url()}).id
            rig.scripts.cancel(first, 60)
            rig.tick()
            rig.deliver()
        self.waiting = send_postbacks("acme", [MT] * 3)
        rig.tick()
        _, begun, *_ = rig.scripts.claim(
            "loop", 30_000, at_most=1, suspects_max=1, free=2000, held_max=0, held_per_lane=1, slow_lanes=()
        )
        self.sending = begun[0].id.decode()
        self.waiting.remove(self.sending)
        rig.tick()

    def field(self, one, name):
        return self.client.hget(keys.record(one), name)


def message(task):
    return json.dumps({"headers": {"task": task}, "body": ""})


def turn_feed_on(ward, **fields):
    """Turn the feed on, and write what recorders and ticks note of it."""
    Feed(ward.client).register()
    ward.client.hset(keys.HISTORY, mapping={"resync": "", **fields})
