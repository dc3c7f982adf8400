"""``postbacks demo``: send every kind of postback and show what arrives."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import click

from postbacks.cli.base import (
    Command,
    add_row,
    json_option,
    make_table,
    print_json,
    print_table,
    say,
    state_text,
    stderr_console,
    stop_signals,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.progress import Progress, TaskID

    from postbacks.cli.demo_plan import Journey, Kind
    from postbacks.devtools.embedded_broker import EmbeddedBroker
    from postbacks.devtools.receiver import Received, Receiver

#: Seconds for all postbacks together, which take about ten.
_DEADLINE_S: Final = 45.0
#: Seconds between two reads of the ledger.
_POLL_EVERY_S: Final = 0.1


@click.command(cls=Command, examples=("postbacks demo", "postbacks demo --json"))
@json_option
def demo(as_json: bool) -> None:
    """See every kind of postback travel.

    It sends a postback of every event to good and bad receivers, and checks what arrives: one receiver fails twice, one
    is slow, one answers 204 (which is no success), and one port is dead.

    It starts a broker, a worker, a beat and receivers of its own on this machine, stops them afterwards, and touches
    nothing else. It exits with 0 only if every outcome is right and every tag arrived as it was sent.
    """
    stop_signals()
    began_s = time.monotonic()
    logs = Path(tempfile.mkdtemp(prefix="postbacks-demo-"))
    try:
        journeys, problems = _run(logs)
    except KeyboardInterrupt:
        shutil.rmtree(logs, ignore_errors=True)
        raise
    _print(journeys, problems, as_json=as_json)
    if problems:
        for problem in problems:
            say(f"WRONG  {problem}")
        raise click.ClickException(f"{len(problems)} results are wrong; the logs are in {logs}.")
    shutil.rmtree(logs, ignore_errors=True)
    say(
        f"All {len(journeys)} outcomes are right, and every tag arrived as it was sent "
        f"({time.monotonic() - began_s:.0f} s in all)."
    )


def _run(logs: Path) -> tuple[list[Journey], list[str]]:
    from postbacks.cli.demo_plan import COUNTDOWN_S, DEAD_PORT, KINDS, journeys
    from postbacks.devtools.embedded_broker import EmbeddedBroker
    from postbacks.devtools.receiver import dead_port
    from postbacks.devtools.stack import LocalStack

    with ExitStack() as stack:
        say("Starting the broker, a worker, the beat and the receivers …")
        receivers = {kind.account: receiver for kind, receiver in _receivers().items()}
        for receiver in receivers.values():
            stack.enter_context(receiver)
        bases = {account: receiver.url("") for account, receiver in receivers.items()}
        bases[DEAD_PORT.account] = f"http://127.0.0.1:{stack.enter_context(dead_port())}"
        broker = stack.enter_context(EmbeddedBroker(with_password=True))
        _set_environment(broker, COUNTDOWN_S)
        stack.enter_context(LocalStack(broker, log_dir=logs, cwd=logs))
        _set_accounts(KINDS, bases)
        sent = journeys()
        _send(sent)
        _watch(sent)
        problems = _problems(sent, receivers)
        say("Stopping …")
    return sent, problems


def _receivers() -> Mapping[Kind, Receiver]:
    from postbacks.cli.demo_plan import NO_CONTENT, OK, SLOW, SLOW_S, TWICE
    from postbacks.devtools.receiver import Answer, Receiver, fail_first

    return {
        OK: Receiver(),
        TWICE: Receiver(fail_first(2)),
        SLOW: Receiver(lambda _: Answer(delay_s=SLOW_S)),
        NO_CONTENT: Receiver(lambda _: Answer(204, b"")),
    }


def _set_environment(broker: EmbeddedBroker, countdown_s: float) -> None:
    """Set the demo's settings for this process and those that it starts, in place of the user's."""
    from postbacks.devtools.valkey import SERVER
    from postbacks.settings import load

    for name in list(os.environ):
        if name.startswith("POSTBACKS_") and name not in ("POSTBACKS_DEBUG", SERVER):
            del os.environ[name]
    os.environ["POSTBACKS_BROKER_URL"] = broker.url
    os.environ["POSTBACKS_ALLOWED_NETWORKS"] = "127.0.0.0/8"
    os.environ["POSTBACKS_RETRY_COUNTDOWN_S"] = f"{countdown_s:g}"
    load.cache_clear()


def _set_accounts(kinds: Iterable[Kind], bases: Mapping[str, str]) -> None:
    from postbacks.accounts import make_account, redis_accounts
    from postbacks.cli.demo_plan import PATHS

    for kind in kinds:
        urls = {url: bases[kind.account] + PATHS[url] for url in kind.urls}
        redis_accounts().set(make_account(kind.account, **urls))


def _send(journeys: Iterable[Journey]) -> None:
    from postbacks import send_postback

    for journey in journeys:
        journey.postback_id = send_postback.delay(journey.kind.account, journey.tags).id
        journey.sent_ms = int(time.time() * 1000)


def _watch(journeys: list[Journey]) -> None:
    """Follow the postbacks until all have ended, or to the deadline."""
    from postbacks.broker.client import client
    from postbacks.ledger.ledger import Ledger

    ledger = Ledger(client())
    deadline_s = time.monotonic() + _DEADLINE_S
    pending = journeys
    with _Progress(journeys) as progress:
        while pending and time.monotonic() < deadline_s:
            time.sleep(_POLL_EVERY_S)
            records = ledger.find_many([journey.postback_id for journey in pending])
            for journey in pending:
                journey.record = records[journey.postback_id]
            progress.update([journey for journey in pending if journey.ended])
            pending = [journey for journey in pending if not journey.ended]


class _Progress:
    """Live progress: a bar for each kind of URL in a terminal, else a line for each postback that has ended."""

    def __init__(self, journeys: list[Journey]) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        console = stderr_console()
        self._journeys = journeys
        self._progress: Progress | None = None
        self._bars: dict[Kind, TaskID] = {}
        say(f"{len(journeys)} postbacks are sent with send_postback.delay(); resends 1 s after a failure.")
        if not (console.is_terminal and sys.stdout.isatty()):
            return
        self._progress = Progress(
            TextColumn("  {task.description:20}"), BarColumn(), TextColumn("{task.completed:.0f} POSTs of {task.total}"),
            TextColumn("{task.fields[ended]}"), console=console, transient=True,
        )  # fmt: skip
        for kind in dict.fromkeys(journey.kind for journey in journeys):
            total = sum(len(kind.attempts) for journey in journeys if journey.kind is kind)
            self._bars[kind] = self._progress.add_task(kind.words, total=total, ended="")

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, ended: Iterable[Journey]) -> None:
        """Show the progress; ``ended`` are the journeys that have ended since the last call."""
        if self._progress is None:
            for journey in ended:
                attempts = len(journey.record.attempts) if journey.record else 0
                plural = "" if attempts == 1 else "s"
                say(
                    f"{journey.took_s:6.1f} s  {journey.name:18} {journey.url_words:34} "
                    f"{journey.outcome_words} after {attempts} attempt{plural}"
                )
            return
        for kind, bar in self._bars.items():
            records = [
                journey.record
                for journey in self._journeys
                if journey.kind is kind and journey.record is not None
            ]
            states = Counter(record.state for record in records if record.state in {"delivered", "dead"})
            words = ", ".join(f"{count} {state}" for state, count in states.items())
            self._progress.update(bar, completed=sum(len(record.attempts) for record in records), ended=words)


def _problems(journeys: list[Journey], receivers: Mapping[str, Receiver]) -> list[str]:
    from postbacks import send_postback
    from postbacks.cli.demo_plan import DEAD_PORT, problems_of

    by_id: dict[str, list[Received]] = {}
    for receiver in receivers.values():
        by_id |= receiver.by_id()
    problems = [
        f"{journey.name} ({journey.url_words}, {journey.postback_id}): {problem}"
        for journey in journeys
        for problem in problems_of(
            journey, by_id.get(journey.postback_id, []), send_postback.AsyncResult(journey.postback_id).state
        )
    ]
    expected = sum(len(journey.kind.attempts) for journey in journeys if journey.kind is not DEAD_PORT)
    received = sum(receiver.count for receiver in receivers.values())
    if received != expected:
        problems.append(f"the receivers got {received} POSTs, not {expected}")
    return problems


def _print(journeys: list[Journey], problems: list[str], *, as_json: bool) -> None:
    wrong = {
        journey.postback_id
        for journey in journeys
        if any(journey.postback_id in problem for problem in problems)
    }
    if as_json:
        for journey in journeys:
            print_json(_as_json(journey, right=journey.postback_id not in wrong))
        return
    table = make_table("event", "URL kind", "attempts", "outcome", "time", "", right=("attempts", "time"))
    for journey in journeys:
        record = journey.record
        outcome = state_text(record.state if record else "", journey.outcome_words)
        attempts = len(record.attempts) if record else "?"
        took = "" if journey.took_s is None else f"{journey.took_s:.1f} s"
        mark = "WRONG" if journey.postback_id in wrong else "✓"
        add_row(table, journey.name, journey.url_words, attempts, outcome, took, mark)
    print_table(table)
    click.echo()


def _as_json(journey: Journey, *, right: bool) -> dict[str, Any]:
    record = journey.record
    return {
        "id": journey.postback_id,
        "origin": journey.event.origin,
        "code": journey.event.code,
        "url_kind": journey.url_words,
        "attempts": len(record.attempts) if record else None,
        "outcome": record.state if record else None,
        "time_s": journey.took_s,
        "right": right,
    }
