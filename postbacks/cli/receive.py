"""``postbacks receive``: a receiver in a terminal, for developers of receivers."""

from __future__ import annotations

import re
import time
from collections import Counter
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import click

from postbacks.cli.base import Command, json_option, print_json, say, seconds, stop_signals
from postbacks.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from postbacks.devtools.receiver import Answer, Received

#: Seconds of a wait for a POST, as a Ctrl-C that comes just as a wait begins does not interrupt it.
_WAIT_S: Final = 0.5


@click.command(
    cls=Command,
    examples=(
        "postbacks receive",
        "postbacks receive --port 9000 --fail-first 2",
        "postbacks receive --status 503 --delay 0.5 --json",
    ),
)
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--status", default=200, show_default=True, type=click.IntRange(200, 599), help="Status to answer with."
)
@click.option(
    "--fail-first",
    default=0,
    metavar="N",
    type=click.IntRange(min=0),
    help="Answer 500 to the first N POSTs of each postback.",
)
@click.option(
    "--delay",
    "delay_s",
    metavar="S",
    default=0.0,
    type=float,
    callback=seconds,
    help="Answer after so many seconds.",
)
@json_option
def receive(port: int, status: int, fail_first: int, delay_s: float, as_json: bool) -> None:
    """Receive postbacks on this machine and print each.

    It answers 200, or as the options say, until Ctrl-C. Workers send to this machine only if that is allowed, as
    `postbacks up --dev` does.
    """
    from postbacks.devtools.receiver import Receiver

    stop_signals()
    arrived: SimpleQueue[tuple[Received, int]] = SimpleQueue()
    receiver = Receiver(_answers(status, fail_first, delay_s, arrived), port=port, keep=False)
    try:
        receiver.start()
    except OSError as error:
        raise click.UsageError(
            f"Cannot listen on port {port} ({error.strerror}); give another one: --port N."
        ) from None
    try:
        say(f"Receiving on {receiver.url()} ({_promise(status, fail_first, delay_s)}). Ctrl-C ends.")
        while True:
            try:
                received, answered = arrived.get(timeout=_WAIT_S)
            except Empty:
                continue
            if as_json:
                print_json(_as_json(received, answered))
            else:
                click.echo(_as_text(received, answered))
    except KeyboardInterrupt:
        say(f"{receiver.count} received.")
    finally:
        receiver.stop()


def _promise(status: int, fail_first: int, delay_s: float) -> str:
    first = "first POST" if fail_first == 1 else f"first {fail_first} POSTs"
    words = f"500 to the {first} of each postback, then {status}" if fail_first else str(status)
    return f"answers {words}" + (f", {delay_s:g} s later" if delay_s else "")


def _answers(
    status: int, fail_first: int, delay_s: float, arrived: SimpleQueue[tuple[Received, int]]
) -> Callable[[Received], Answer]:
    from postbacks.devtools.receiver import Answer

    posts: Counter[str] = Counter()

    def answer(received: Received) -> Answer:
        posts[received.postback_id] += 1
        answered = 500 if posts[received.postback_id] <= fail_first else status
        arrived.put((received, answered))
        return Answer(answered, b"" if answered == 204 else b"test receiver", delay_s=delay_s)

    return answer


def _tags(received: Received) -> tuple[dict[str, Any] | None, str]:
    """Return the document's tags, or None and the reason why it has none."""
    from postbacks.errors import InvalidEvent

    try:
        return received.tags, ""
    except InvalidEvent as error:
        return None, "; ".join(why for _, why in error.problems)


def _as_json(received: Received, answered: int) -> dict[str, Any]:
    tags, fault = _tags(received)
    headers = received.headers
    values = {
        "at": _moment(received.at, "%Y-%m-%dT%H:%M:%S", time.gmtime) + "Z",
        "id": headers.get("postback-id"),
        "attempt": headers.get("postback-attempt"),
        "method": received.method,
        "path": received.path,
        "answered": answered,
        "headers": headers,
        "tags": tags,
        "body": received.body.decode("utf-8", "replace"),
    }
    if re.fullmatch(r"\d{1,9}", str(values["attempt"]), re.ASCII):
        values["attempt"] = int(str(values["attempt"]))
    return values | ({"fault": fault} if fault else {})


def _as_text(received: Received, answered: int) -> str:
    tags, fault = _tags(received)
    clock = _moment(received.at, "%H:%M:%S", time.localtime)
    attempt = printable(received.headers.get("postback-attempt", "?"))
    request = printable(f"{received.method} {received.path}")
    if tags is None:
        return (
            f"{clock}  {request}  answered {answered}  "
            + click.style("no postback", fg="red")
            + f": {printable(fault)}\n"
        )
    event = printable(f"{tags.get('ORIGIN', '?')} {tags.get('CODE', '?')}")
    lines = [
        f"{clock}  {click.style(event, bold=True)}  attempt {attempt}  {request}  answered "
        + click.style(str(answered), fg="green" if answered == 200 else "red"),
        f"{'':14}{'id':16}{printable(received.postback_id) or '-'}",
    ]
    for tag, value in tags.items():
        if tag in {"ORIGIN", "CODE"}:
            continue
        for name, text in _flat(tag, value):
            lines.append(f"{'':14}{printable(name):16}{printable(text)}")
    return "\n".join(lines) + "\n"


def _flat(tag: str, value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, dict):
        return [(tag, str(value))]
    return [(f"{tag} {name}", text) for name, texts in value.items() for text in texts]


def _moment(at: float, form: str, zone: Callable[[float], time.struct_time]) -> str:
    return f"{time.strftime(form, zone(at))}.{int(at % 1 * 1000):03}"
