"""A whole system behind the dashboard: broker, worker, beat, recorder and dashboard as processes, and a real receiver."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from events import MT
from helpers import BASE_ENV, environment, eventually, set_account

from postbacks import send_postback
from postbacks.broker.client import client
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.process import START_S
from postbacks.devtools.receiver import Answer, Received, Receiver
from postbacks.devtools.stack import LocalStack, StackProcess
from postbacks.history import Query, count
from postbacks.history.engine import reader
from postbacks.ledger.ledger import Ledger
from postbacks.settings import load
from postbacks.web.security import passwords, users

#: Password of all users.
PASSWORD = "correct horse battery"
ROLES = ("viewer", "support", "operator", "admin")
#: A postback that fails is sent again after a second, once; an endpoint that has failed for a second is an incident.
_HASTE = {
    "POSTBACKS_RETRY_COUNTDOWN_S": "1",
    "POSTBACKS_MAX_RESENDS": "1",
    "POSTBACKS_INCIDENT_AFTER_S": "1",
    "POSTBACKS_PROFILE_CACHE_S": "1",
}


class Stage:
    """System that runs, and what a test does with it beside the browser.

    Args:
        url: of the dashboard.
        users_path: file of its users; ``ann-ROLE`` has that role.
        history_url: database of the history.
        receiver: of most accounts, each at a path of its own.
        failing: of accounts whose receiver shares its address with none that is well.
        answers: path -> what the receivers answer there; 200 without an entry.
    """

    def __init__(
        self,
        url: str,
        users_path: Path,
        history_url: str,
        receiver: Receiver,
        failing: Receiver,
        answers: dict[str, Answer],
    ) -> None:
        self.url = url
        self.users_path = users_path
        self.history_url = history_url
        self.receiver = receiver
        self.failing = failing
        self.answers = answers

    def account(self, name: str, answer: Answer | None = None, **more: Any) -> None:
        """Set an account whose receiver gives this answer."""
        if answer is not None:
            self.answers[f"/{name}"] = answer
        set_account(name, **{"url": self.receiver.url(f"/{name}"), **more})

    def send(self, account: str, number_of: int = 1, **tags: Any) -> list[str]:
        """Send events to an account; return the ids."""
        return [
            send_postback.delay(account, MT | {"TRACKINGID": f"{account}-{number}"} | tags).id
            for number in range(number_of)
        ]

    def recorded(self, number: int, **filters: Any) -> None:
        """Wait until the history has so many postbacks that fit."""
        query = Query(**filters)
        eventually(
            lambda: count(query).postbacks == number, 60, f"{number} postbacks of {filters} in the history"
        )

    def reached(self, postback_id: str, state: str) -> None:
        """Wait until the broker has a postback in this state."""
        ledger = Ledger(client())

        def look() -> bool:
            record = ledger.find(postback_id)
            return record is not None and record.state == state

        eventually(look, 60, f"state {state} of {postback_id}")

    def posts(self, account: str) -> list[Received]:
        """Return the POSTs that an account has received."""
        return [post for post in self.receiver.received if post.path == f"/{account}"]


def _empty(broker: EmbeddedBroker) -> None:
    with broker.client() as connection:
        connection.flushdb()


@contextmanager
def running_stage(broker: EmbeddedBroker, folder: Path) -> Iterator[Stage]:
    """Start all of it on the suite's broker; logs are shown when something fails."""
    _empty(broker)
    users_path, history_url = folder / "users", f"sqlite:///{folder}/history.db"
    for role in ROLES:
        users.write(users_path, f"ann-{role}", role, passwords.hashed(PASSWORD))
    answers: dict[str, Answer] = {}
    with ExitStack() as started:
        receiver, failing = (
            started.enter_context(Receiver(lambda post: answers.get(post.path, Answer()))) for _ in range(2)
        )
        listening = started.enter_context(socket.create_server(("127.0.0.1", 0)))
        env = {
            **BASE_ENV,
            **_HASTE,
            "POSTBACKS_HISTORY_URL": history_url,
            "POSTBACKS_WEB_USERS": str(users_path),
        }
        started.enter_context(environment(**env))
        started.callback(lambda: reader(load()).dispose())
        broker_env = env | {"POSTBACKS_BROKER_URL": broker.url}
        hasty = [sys.executable, str(Path(__file__).with_name("hasty_recorder.py"))]
        recorder = StackProcess("The recorder", hasty, env=broker_env, log_path=folder / "recorder.log")
        stack = LocalStack(broker, env=env, log_dir=folder, web_socket=listening)
        try:
            started.enter_context(recorder)
            started.enter_context(stack)
            recorder.wait_for_log("history.", START_S)
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            yield Stage(url, users_path, history_url, receiver, failing, answers)
        except BaseException:
            for log in sorted(folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}")
            raise
    _empty(broker)
