"""The embedded broker on a disk of 4 MB of its own, which fills up: run by ``test_full_disk.py`` in a mount namespace.

Prints one JSON object: what was accepted, what arrived, and what `postbacks up` said.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import redis
from click.testing import CliRunner
from events import LONG
from helpers import BASE_ENV, Rig, environment, eventually, free_port, set_account

from postbacks import send_postback
from postbacks.cli import main as cli
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Receiver
from postbacks.errors import BrokerError

UP = [
    sys.executable,
    "-c",
    "from postbacks.cli import main; main()",
    "up",
    "--dev",
    "--json",
    "--data",
    "data",
]


def mount(*options: str) -> None:
    """Mount the disk, or change it."""
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", "data"], check=True)


def run_up(port: int, receiver: Receiver) -> tuple[list[str], str]:
    """Run `postbacks up` and send until it has ended; the ids that were accepted, and what it said."""
    accepted: list[str] = []
    with (
        Path("said").open("w+", encoding="utf-8") as said,
        subprocess.Popen([*UP, "--port", str(port)], stdout=subprocess.PIPE, stderr=said) as up,
    ):
        assert up.stdout is not None
        try:
            if started := up.stdout.readline():  # else it has ended
                with environment(POSTBACKS_BROKER_URL=json.loads(started)["broker_url"]):
                    set_account("acme", url=receiver.url())
                    while up.poll() is None:
                        try:
                            accepted.append(send_postback.delay("acme", LONG).id)
                        except BrokerError:
                            up.wait(90)
            assert up.wait(90) == 1
        finally:
            up.kill()
        said.seek(0)
        return accepted, said.read()


def end_again(port: int) -> str:
    """Start the broker on the full disk once more and write; what it says when it has ended."""
    broker = EmbeddedBroker(Path("data"), port=port)
    try:
        broker.start()
        with broker.client() as client, suppress(redis.RedisError):
            while True:
                client.lpush("postbacks:test", LONG["TEXT"])
        eventually(lambda: not broker.alive, what="its end")
        return broker.why_ended()
    except BrokerError as error:  # it may not even come so far
        return str(error)
    finally:
        broker.stop()


def doctor_says() -> str:
    """Run `postbacks doctor`; what it says of the disk's free space."""
    lines = CliRunner().invoke(cli, ["doctor", "--json"]).stdout.splitlines()
    (found,) = [row for row in map(json.loads, lines) if row["check"] == "disk-space"]
    return f"{found['level']}: {found['says']}"


def main() -> None:
    """Fill the disk twice, give it room, and deliver."""
    Path("data").mkdir()
    mount("-o", "size=4m,mode=700")
    port = free_port()
    os.environ.update(BASE_ENV, POSTBACKS_BROKER_URL=f"redis://127.0.0.1:{port}/0")
    with Receiver() as receiver:
        accepted, first = run_up(port, receiver)
        second = end_again(port)
        mount("-o", "remount,size=64m")
        with EmbeddedBroker(Path("data"), port=port) as broker:
            rig = Rig(broker)
            rig.advance(31)  # leases of loops that died with it have ended
            while rig.tick().more or rig.deliver():
                pass
            rig.close()
            doctor = doctor_says()
        arrived = set(receiver.by_id())
    lost = sorted({*accepted} - arrived)
    print(json.dumps({"accepted": len(accepted), "lost": lost, "said": [first, second], "doctor": doctor}))


main()
