"""Accounts and a history in which a person is named, and the process that forgets the person."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner
from events import MT
from helpers import eventually, set_account
from recording import settle

from postbacks import send_postback
from postbacks.cli import main
from postbacks.history import values
from postbacks.operate.forget import Receipt
from postbacks.operate.forget.duty import ForgetDuty
from postbacks.operate.forget.request import Requests
from postbacks.settings import load

#: Number of the person, as events, people and a receiver write it.
NUMBER = "15557654321"
#: The last as JSON has it of somebody who writes hyphens that do not break a line.
SPELLINGS = ("5557654321", "+1 (555) 765-4321", r"555\u2011765\u20114321")
#: Number of somebody else, whose postbacks stand beside the person's.
OTHER = "15551234567"
HASH = values.hash_of("number", NUMBER)
MINE, HERS = MT | {"TO": NUMBER}, MT | {"TO": OTHER}


def call(*args: str, **more: Any):
    return CliRunner().invoke(main, args, prog_name="postbacks", **more)


class World:
    """Accounts, a recorder that works, and the duty beside it, all in this process."""

    def __init__(self, rig, receiver, recorder) -> None:
        self.rig, self.client, self.recorder = rig, rig.client, recorder
        self.receiver = receiver
        self.duty = ForgetDuty(recorder, rig.client, load())
        set_account("acme", url=receiver.url("/good"))
        set_account("sour", url=receiver.url("/echo"))

    def send(self, account: str, event: dict[str, str], **options: Any) -> str:
        """Send an event; return its id."""
        return send_postback.apply_async((account, event), **options).id

    def deliver(self) -> None:
        """Take in what waits and deliver it, and record that."""
        self.rig.tick()
        self.rig.deliver()
        settle(self.recorder, self.client)

    def turn(self) -> None:
        """Let the history's process do what it does."""
        self.recorder.turn()
        self.duty.turn()

    def end(self, request: str) -> Receipt:
        """Let the history's process go on until a request has ended."""

        def look() -> Receipt | None:
            self.turn()
            receipt = Requests(self.client).read(request)
            return receipt if receipt.ended_ms is not None else None

        return eventually(look, what="the end of the request")

    def state(self, postback_id: str) -> str:
        return self.rig.record(postback_id).state
