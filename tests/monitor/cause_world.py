"""System in which a postback waits for a cause."""

from __future__ import annotations

from contextlib import ExitStack

from events import EVENT as SUB
from helpers import Rig, set_account

from postbacks import send_postbacks
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.monitor.causes import Cause, explain

ENDPOINT = "http://127.0.0.1:8080"
WORKER = "0123456789abcdef@0.2.0@worker1@host"


class World(ExitStack):
    """The rig, and what a cause needs beside it."""

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self.rig = rig

    def waiting(self, *events: dict[str, str], account: str = "acme", **options: object) -> list[str]:
        """Postbacks of an account that have been taken in."""
        set_account(account, url=f"{ENDPOINT}/", **options)
        ids = send_postbacks(account, events)
        self.rig.tick()
        return ids

    def failed(self) -> list[str]:
        """Three postbacks whose receiver has answered 500; they are due again, and stand in their lane."""
        receiver = self.enter_context(Receiver(lambda _: Answer(500)))
        set_account("acme", url=receiver.url())
        ids = send_postbacks("acme", [SUB] * 3)
        self.rig.tick()
        self.rig.deliver()
        self.rig.advance(301)
        self.rig.tick()
        return ids

    def configure(self, **values: str) -> None:
        """Configure the broker until the end."""
        for name, value in values.items():
            before = self.rig.client.config_get(name)[name]
            self.rig.client.config_set(name, value)
            self.callback(self.rig.client.config_set, name, before)

    def causes(self, postback_id: str) -> dict[str, Cause]:
        """The causes that are told, by name."""
        rig = self.rig
        causes = explain(
            rig.client, postback_id, rig.settings, clock_offset_ms=rig.scripts.clock_offset_ms
        ).causes
        assert len({cause.name for cause in causes}) == len(causes)
        return {cause.name: cause for cause in causes}


def die(world: World) -> None:
    """Let the lease of whatever is claimed end, and a tick take it over."""
    world.rig.advance(31)
    world.rig.tick()
