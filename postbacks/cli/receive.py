"""``postbacks receive``: a receiver in a terminal, for developers of receivers."""

from __future__ import annotations

import re
import time
from collections import Counter
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
from click.core import ParameterSource

from postbacks.cli.base import Command, json_option, print_json, say, seconds, stop_signals
from postbacks.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from postbacks.devtools.forwarder import Forwarded, Forwarder
    from postbacks.devtools.receiver import Answer, Received

#: Seconds of a wait for a POST, as a Ctrl-C that comes just as a wait begins does not interrupt it.
_WAIT_S: Final = 0.5


class _Answered(NamedTuple):
    """A request and its answer; ``forwarded_to`` is the URL of the server that has answered it."""

    received: Received
    status: int | None
    forwarded_to: str = ""
    forwarded: Forwarded | None = None


@click.command(
    cls=Command,
    examples=(
        "postbacks receive",
        "postbacks receive --port 9000 --fail-first 2",
        "postbacks receive --status 503 --delay 0.5 --json",
        "postbacks receive --forward-to http://127.0.0.1:3000/postbacks",
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
@click.option(
    "--forward-to",
    metavar="URL",
    help="Pass each request on to this server, and answer as it does. Its path takes the place of the request's.",
)
@json_option
@click.pass_context
def receive(
    ctx: click.Context,
    port: int,
    status: int,
    fail_first: int,
    delay_s: float,
    forward_to: str | None,
    as_json: bool,
) -> None:
    """Receive postbacks on this machine and print each.

    It answers 200, or as the options say, until Ctrl-C. Workers send to this machine only if that is allowed, as
    `postbacks up --dev` does.

    With --forward-to each request goes on to a server of yours, byte for byte, and the sender gets that server's
    answer, byte for byte, or 502 if it gives none. Redirects are not followed.
    """
    from postbacks.devtools.receiver import Receiver

    arrived: SimpleQueue[_Answered] = SimpleQueue()
    if forward_to is None:
        answers, promise = (
            _answers(status, fail_first, delay_s, arrived),
            _promise(status, fail_first, delay_s),
        )
    else:
        forwarder = _forwarder(ctx, forward_to, port, arrived)
        answers, promise = forwarder.answer, f"answers as {forwarder.url} does"
    stop_signals()
    receiver = Receiver(answers, port=port, keep=False)
    try:
        receiver.start()
    except OSError as error:
        raise click.UsageError(
            f"Cannot listen on port {port} ({error.strerror}); give another one: --port N."
        ) from None
    try:
        say(f"Receiving on {receiver.url()} ({promise}). Ctrl-C ends.")
        while True:
            try:
                answered = arrived.get(timeout=_WAIT_S)
            except Empty:
                continue
            if as_json:
                print_json(_as_json(answered))
            else:
                click.echo(_as_text(answered))
    except KeyboardInterrupt:
        say(f"{receiver.count} received.")
    finally:
        receiver.stop()


def _promise(status: int, fail_first: int, delay_s: float) -> str:
    first = "first POST" if fail_first == 1 else f"first {fail_first} POSTs"
    words = f"500 to the {first} of each postback, then {status}" if fail_first else str(status)
    return f"answers {words}" + (f", {delay_s:g} s later" if delay_s else "")


def _answers(
    status: int, fail_first: int, delay_s: float, arrived: SimpleQueue[_Answered]
) -> Callable[[Received], Answer]:
    from postbacks.devtools.receiver import Answer

    posts: Counter[str] = Counter()

    def answer(received: Received) -> Answer:
        posts[received.postback_id] += 1
        answered = 500 if posts[received.postback_id] <= fail_first else status
        arrived.put(_Answered(received, answered))
        return Answer(answered, b"" if answered == 204 else b"test receiver", delay_s=delay_s)

    return answer


def _forwarder(ctx: click.Context, url: str, port: int, arrived: SimpleQueue[_Answered]) -> Forwarder:
    """Make a forwarder; refuse options that say how to answer, as its server does that."""
    from postbacks.devtools.forwarder import Forwarder
    from postbacks.errors import InvalidUrl

    for name in ("status", "fail_first", "delay_s"):
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = next(param for param in ctx.command.params if param.name == name).opts[0]
            raise click.UsageError(f"{option} says how to answer, but with --forward-to your server answers.")

    def on_done(received: Received, forwarded: Forwarded) -> None:
        arrived.put(_Answered(received, forwarded.status, forwarder.url, forwarded))

    try:
        forwarder = Forwarder(url, on_done)
    except InvalidUrl as error:
        raise click.UsageError(f"--forward-to: {error}") from None
    if forwarder.leads_to(port):
        raise click.UsageError(
            f"--forward-to names this receiver itself, port {port}; give your server's URL, or another --port."
        )
    return forwarder


def _excerpt(forwarded: Forwarded) -> str:
    """Return the first line of an answer, as the ledger would keep it of a failure."""
    from postbacks.transport.answer import excerpt_of

    text, fault = excerpt_of(forwarded.header_lines, forwarded.body, _default("excerpt_bytes"))
    return next((line.strip() for line in text.splitlines() if line.strip()), fault)


def _default(setting: str) -> Any:
    """Return a setting's default: what a worker does that nobody has told otherwise."""
    from postbacks.settings import Settings

    return Settings.model_fields[setting].default


def _forwarded_words(answered: _Answered, forwarded: Forwarded) -> str:
    words = f"{answered.forwarded_to}: "
    if forwarded.is_servers:
        status = "no HTTP" if forwarded.status is None else str(forwarded.status)
        words += f"answered {status} in {forwarded.elapsed_s * 1000:.0f} ms"
        if forwarded.elapsed_s > (waits_s := _default("answer_timeout_s")):
            words += f", later than the {waits_s:g} s that a worker waits"
        excerpt = _excerpt(forwarded)
        words += f", {forwarded.problem}" if forwarded.problem else ""
        return words + (f": {excerpt}" if excerpt else "")
    return f"{words}{forwarded.problem}, so the answer is {forwarded.status}"


def _tags(received: Received) -> tuple[dict[str, Any] | None, str]:
    """Return the document's tags, or None and the reason why it has none."""
    from postbacks.errors import InvalidEvent

    try:
        return received.tags, ""
    except InvalidEvent as error:
        return None, "; ".join(why for _, why in error.problems)


def _as_json(answered: _Answered) -> dict[str, Any]:
    received, forwarded = answered.received, answered.forwarded
    tags, fault = _tags(received)
    headers = received.headers
    values = {
        "at": _moment(received.at, "%Y-%m-%dT%H:%M:%S", time.gmtime) + "Z",
        "id": headers.get("postback-id"),
        "attempt": headers.get("postback-attempt"),
        "method": received.method,
        "path": received.path,
        "answered": answered.status,
        "headers": headers,
        "tags": tags,
        "body": received.body.decode("utf-8", "replace"),
    }
    if re.fullmatch(r"\d{1,9}", str(values["attempt"]), re.ASCII):
        values["attempt"] = int(str(values["attempt"]))
    if forwarded is not None:
        values["forwarded"] = {
            "to": answered.forwarded_to,
            "elapsed_ms": round(forwarded.elapsed_s * 1000, 1),
            "problem": forwarded.problem or None,
            "excerpt": _excerpt(forwarded),
        }
    return values | ({"fault": fault} if fault else {})


def _as_text(answered: _Answered) -> str:
    received, forwarded = answered.received, answered.forwarded
    status = "-" if answered.status is None else str(answered.status)
    last_line = ""
    if forwarded is not None:
        last_line = f"{'':14}{'forwarded to':16}{printable(_forwarded_words(answered, forwarded))}\n"
    tags, fault = _tags(received)
    clock = _moment(received.at, "%H:%M:%S", time.localtime)
    attempt = printable(received.headers.get("postback-attempt", "?"))
    request = printable(f"{received.method} {received.path}")
    if tags is None:
        return (
            f"{clock}  {request}  answered {status}  "
            + click.style("no postback", fg="red")
            + f": {printable(fault)}\n{last_line}"
        )
    event = printable(f"{tags.get('ORIGIN', '?')} {tags.get('CODE', '?')}")
    lines = [
        f"{clock}  {click.style(event, bold=True)}  attempt {attempt}  {request}  answered "
        + click.style(status, fg="green" if answered.status == 200 else "red"),
        f"{'':14}{'id':16}{printable(received.postback_id) or '-'}",
    ]
    for tag, value in tags.items():
        if tag in {"ORIGIN", "CODE"}:
            continue
        for name, text in _flat(tag, value):
            lines.append(f"{'':14}{printable(name):16}{printable(text)}")
    return "\n".join(lines) + f"\n{last_line}"


def _flat(tag: str, value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, dict):
        return [(tag, str(value))]
    return [(f"{tag} {name}", text) for name, texts in value.items() for text in texts]


def _moment(at: float, form: str, zone: Callable[[float], time.struct_time]) -> str:
    return f"{time.strftime(form, zone(at))}.{int(at % 1 * 1000):03}"
