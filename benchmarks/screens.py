"""Take the screens of the docs: run a small stack, type each command into a terminal, and write what it shows into its block.

A block stands on a page of docs/ behind a line that names it::

    <!-- screen: resend -->
    ```console
    $ postbacks resend --account acme --dead
    ...
    ```

``SCREENS`` has the commands in the order in which they are typed, and what happens before each. To add one, add its row there
and an empty block to a page, then run ``make screens``.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
COLUMNS = 118
#: A block: its name, and what stands between its fences.
BLOCK = re.compile(r"(<!-- screen: ([\w-]+) -->\n```console\n)(.*?)(```\n)", re.DOTALL)
#: What a terminal obeys and does not show.
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
#: Ends of what a command shows while it waits for an answer.
QUESTION = re.compile(r"(\[y/N\]|to go on): $")
ENV = {
    "POSTBACKS_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128", "POSTBACKS_MAX_RESENDS": "0",
    "POSTBACKS_ENDPOINT_MAX_TRANSFERS": "100", "POSTBACKS_USER": "ann", "POSTBACKS_INCIDENT_AFTER_S": "5",
    "TZ": "UTC", "TERM": "xterm", "NO_COLOR": "1",
}  # fmt: skip


def visible(written: str) -> str:
    """Return what a terminal shows in the end of what was written to it."""
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in CONTROLS.sub("", written).split("\n")]
    return "\n".join(line.rstrip() for line in lines).strip("\n")


class World:
    """A stack on which commands are typed, and receivers that answer by account.

    Attributes:
        status: account -> status that its receiver answers with.
        values: what commands of ``SCREENS`` name in braces, such as a job's id.
    """

    def __init__(self, client, receiver, env: dict[str, str]) -> None:
        self.client, self.receiver, self.env = client, receiver, env
        self.status: dict[str, int] = {}
        self.values: dict[str, str] = {}

    def call(self, *args: str, text: str = "") -> str:
        """Run a command that is no screen; return its stdout."""
        command = [sys.executable, "-c", "from postbacks.cli import main; main(prog_name='postbacks')", *args]
        done = subprocess.run(command, env=self.env, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"postbacks {' '.join(args)}: {done.stderr}")
        return done.stdout

    def account(self, name: str, status: int) -> None:
        """Set an account whose receiver answers so."""
        self.status[name] = status
        self.call("account", "set", name, "--url", self.receiver.url(f"/{name}"))

    def send(self, account: str, count: int, row: tuple[str, str] = ("SMS_MT", "N202"), **tags: str) -> None:
        """Send events of a row of the catalogue, delivery receipts where none is named."""
        event = json.loads(self.call("example", *row)) | tags
        self.call("send", account, "-", text="\n".join([json.dumps(event)] * count))

    def wait(self, look: Callable[[], object], what: str) -> None:
        """Look until it is true, for a minute."""
        deadline_s = time.monotonic() + 60
        while not look():
            if time.monotonic() > deadline_s:
                raise SystemExit(f"{what} did not happen within a minute")
            time.sleep(0.05)

    def wait_for_dead(self, count: int) -> None:
        """Wait until so many are dead, and the history has them."""
        from postbacks import keys

        self.wait(
            lambda: self.client.zcard(keys.DEAD) == count and not self.client.xlen(keys.CHANGES),
            f"the death of {count}",
        )

    def latest_job(self) -> None:
        """Name the latest job ``job``."""
        self.values["job"] = json.loads(self.call("jobs", "--json").splitlines()[0])["id"]

    def type(self, command: str, answer: str) -> str:
        """Type a command into a terminal, and an answer to its question; return what the terminal shows in the end."""
        ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        line = f"""postbacks() {{ {sys.executable} -c "from postbacks.cli import main; main(prog_name='postbacks')" "$@"; }}\n"""
        shown = ""
        with subprocess.Popen(
            ["bash", "-c", line + command], stdin=theirs, stdout=theirs, stderr=theirs, env=self.env
        ):
            os.close(theirs)
            while select.select([ours], [], [], 60)[0]:
                try:
                    piece = os.read(ours, 65_536).decode(errors="replace")
                except OSError:  # the other side has ended
                    break
                if not piece:
                    break
                shown += piece
                if answer and QUESTION.search(CONTROLS.sub("", shown)):
                    os.write(ours, f"{answer}\n".encode())
                    answer = ""
        os.close(ours)
        return visible(shown)


@dataclass(frozen=True)
class Screen:
    """A screen of the docs.

    Attributes:
        name: of its block.
        command: what is typed; ``{job}`` stands for a value of the world.
        before: what happens before it is typed.
        answer: to its question.
    """

    name: str
    command: str
    before: tuple[Callable[[World], object], ...] = ()
    answer: str = ""


def acme_failed(world: World) -> None:
    """Let 240 postbacks of acme and 400 of beta die."""
    world.account("acme", 503)
    world.account("beta", 503)
    world.send("acme", 240)
    world.send("beta", 400)
    world.wait_for_dead(640)
    world.status["acme"] = 200


def endpoint_fails(world: World) -> None:
    """Let the finder see that every attempt fails."""
    world.wait(lambda: "503" in world.call("incidents", "--json"), "an incident")


def gamma_works(world: World) -> None:
    """Set an account that works."""
    world.account("gamma", 200)


def five_wait(world: World) -> None:
    """Send five to the account that is paused by now."""
    from postbacks import keys

    world.send("gamma", 5)
    world.wait(lambda: world.client.llen(keys.lane("gamma/mt")) == 5, "the wait of five")


def stop_failed(world: World) -> None:
    """Let an opt-out die."""
    world.account("delta", 503)
    world.send("delta", 1, ("SMS_MO", "N211"), TEXT="STOP")
    world.wait(
        lambda: "delta" in world.call("list", "--opt-outs", "--dead", "--json"), "the death of an opt-out"
    )


SCREENS = (
    Screen("incidents", "postbacks incidents", (acme_failed, endpoint_fails)),
    Screen("incident-show", "postbacks incident show 1"),
    Screen("resend-dry-run", "postbacks resend --account acme --dead --dry-run"),
    Screen("resend", "postbacks resend --account acme --dead --why 'their gateway was down'", answer="240"),
    Screen("resend-paused", "postbacks resend --account beta --dead", answer="400"),
    Screen("jobs", "postbacks jobs"),
    Screen("job-show", "postbacks job show {job}", (World.latest_job,)),
    Screen("job-stop", "postbacks job stop {job}"),
    Screen(
        "pause", "postbacks account pause gamma --until 2h --reason 'they move their servers'", (gamma_works,)
    ),
    Screen("paused", "postbacks account list --paused", (five_wait,)),
    Screen("resume", "postbacks account resume gamma"),
    Screen("opt-outs", "postbacks list --opt-outs --undelivered", (stop_failed,)),
    Screen("forget", "postbacks forget --number 15552312102 --why 'letter of 24 November'", answer="y"),
    Screen("journal", "postbacks journal --limit 5"),
)


@contextmanager
def world() -> Iterator[World]:
    """Run a broker, a worker, a beat, a recorder and a receiver."""
    from postbacks.devtools.embedded_broker import EmbeddedBroker
    from postbacks.devtools.receiver import Answer, Receiver
    from postbacks.devtools.stack import LocalStack

    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker, broker.client() as client:
        made: World

        def answer(post) -> Answer:
            return Answer(made.status[post.path.strip("/")])

        with Receiver(answer) as receiver:
            history_url = f"sqlite:///{folder}/history.db"
            env = {name: value for name, value in os.environ.items() if not name.startswith("POSTBACKS_")}
            env |= ENV | {"POSTBACKS_BROKER_URL": broker.url, "POSTBACKS_HISTORY_URL": history_url}
            made = World(client, receiver, env)
            with LocalStack(broker, env=ENV, log_dir=Path(folder), history_url=history_url):
                yield made


def take() -> dict[str, str]:
    """Take all screens: name -> command and what it shows."""
    taken = {}
    with world() as made:
        for screen in SCREENS:
            for step in screen.before:
                step(made)
            command = screen.command.format_map(made.values)
            taken[screen.name] = f"$ {command}\n{made.type(command, screen.answer)}\n"
    return taken


def blocks() -> dict[str, str]:
    """Read the screens that the pages have by now: name -> block."""
    found = [match for page in sorted(DOCS.glob("*.md")) for match in BLOCK.finditer(page.read_text())]
    return {match[2]: match[3] for match in found}


def main() -> None:
    """Write the screens into their pages."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    taken = take()
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        written = BLOCK.sub(lambda match: match[1] + taken[match[2]] + match[4], text)
        if written != text:
            page.write_text(written)
            print(f"{page.name}: {len(BLOCK.findall(text))} screens")


if __name__ == "__main__":
    main()
