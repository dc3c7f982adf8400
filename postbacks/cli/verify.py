"""``postbacks verify``: is this request ours, and untouched?"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import math
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from postbacks.cli import arguments
from postbacks.cli.base import Command, json_option, print_json, seconds
from postbacks.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from standardwebhooks import Webhook

#: Bytes of a request that are read at most; a postback has a few KiB.
_MAX_BYTES: Final = 4 * 1024 * 1024
_NEEDED: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it was captured: names of headers in lower case."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of a request: ``reason`` is ``ok`` or the first thing that is wrong with it."""

    reason: str
    words: str
    age_s: float | None = None

    @property
    def ours(self) -> bool:
        """Whether it comes from who has the secret, as it was sent, and lately."""
        return self.reason == "ok"


def _files(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Read secrets that stand in files; standard input is the request."""
    if "-" in values:
        raise click.BadParameter(
            "standard input is the request; give the secret as @FILE or in POSTBACKS_VERIFY_SECRET.",
            ctx,
            param,
        )
    return arguments.texts(ctx, param, values)


@click.command(
    cls=Command,
    examples=(
        "postbacks verify --secret whsec_… < request",
        "postbacks receive --json | postbacks verify --secret whsec_…",
    ),
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    required=True,
    envvar="POSTBACKS_VERIFY_SECRET",
    show_envvar=True,
    metavar="whsec_…",
    callback=_files,
    help="The account's secret; may be given again during an overlap. @FILE keeps it out of lists of processes.",
)
@click.option(
    "--tolerance",
    "tolerance_s",
    type=float,
    default=300.0,
    show_default=True,
    metavar="S",
    callback=seconds,
    help="How old it may be, or from the future.",
)
@click.option(
    "--headers",
    "head",
    type=click.File("rb"),
    metavar="FILE",
    help="Read the headers from here; stdin is the body alone.",
)
@json_option
def verify(secrets: tuple[str, ...], tolerance_s: float, head: BinaryIO | None, as_json: bool) -> None:
    """Check the signature of a request on stdin.

    A request is its head and its body, as they arrived, or a JSON line of `postbacks receive --json` (or many of
    them). Says whether it is ours and untouched, and else what is wrong with it.

    Exit codes: 0 it is; 1 it is not; 2 there is no request or no secret.
    """
    signers = [_signer(secret) for secret in secrets]
    all_ours, count = True, 0
    for count, request in enumerate(_requests(sys.stdin.buffer, head), start=1):  # noqa: B007 - counted on purpose
        finding = examine(request, signers, tolerance_s, time.time())
        all_ours = all_ours and finding.ours
        if as_json:
            print_json(_as_json(request, finding))
        else:
            verdict = click.style("ours", fg="green") if finding.ours else click.style("not proven", fg="red")
            one = printable(request.headers.get("webhook-id") or request.headers.get("postback-id") or "-")
            click.echo(f"{one}  {verdict}: {printable(finding.words)}")
    if not count:
        raise click.UsageError("Standard input holds no request.")
    if not all_ours:
        raise click.exceptions.Exit(1)


def examine(request: Request, signers: Sequence[Webhook], tolerance_s: float, now_s: float) -> Finding:
    """Find out whether a request was signed with one of the secrets, is as it was sent, and is fresh.

    The library's own ``verify()`` has its five minutes fixed and does not tell an old request from a changed one;
    so the signature is made with the library, and compared here.
    """
    missing = [name for name in _NEEDED if not request.headers.get(name)]
    if missing:
        words = f"it has no {', '.join(missing)}"
        if len(missing) == len(_NEEDED):
            words += ": it is not signed (has the account a secret?), or a proxy took the headers off"
        return Finding("missing_header", words)
    stamp = request.headers["webhook-timestamp"]
    sent_s = int(stamp) if stamp.isascii() and stamp.isdecimal() and len(stamp) < 12 else math.nan
    if math.isnan(sent_s):
        return Finding("bad_timestamp", f"its webhook-timestamp {stamp[:40]!r} is no time in seconds")
    given = _signatures(request.headers["webhook-signature"])
    if not given:
        return Finding("bad_signature", "its webhook-signature holds no v1,… signature")
    age_s = now_s - sent_s
    if not _fits(request.headers["webhook-id"], int(sent_s), request.body, given, signers):
        return Finding("mismatch", _why_not(request, int(sent_s), given, signers), age_s)
    if age_s > tolerance_s:
        words = (
            f"it is signed with this secret, but {_length(age_s)} ago, and {_length(tolerance_s)} are allowed"
        )
        return Finding("too_old", f"{words}: somebody sends an old one again, or a clock is wrong", age_s)
    if age_s < -tolerance_s:
        words = f"it is signed with this secret, but for a time {_length(-age_s)} ahead"
        return Finding("too_new", f"{words}: a clock is wrong", age_s)
    return Finding("ok", f"signed with this secret {_length(abs(age_s))} ago, and as it was sent", age_s)


def _fits(
    message_id: str, sent_s: int, body: bytes, given: Sequence[bytes], signers: Sequence[Webhook]
) -> bool:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return False  # ours are UTF-8
    moment = datetime.fromtimestamp(sent_s, UTC)
    made = [signer.sign(message_id, moment, text).partition(",")[2] for signer in signers]
    return any(hmac.compare_digest(base64.b64decode(one), other) for one in made for other in given)


def _why_not(request: Request, sent_s: int, given: Sequence[bytes], signers: Sequence[Webhook]) -> str:
    """What was changed, where that can be found by trying."""
    message_id, body = request.headers["webhook-id"], request.body
    bodies = {
        "line ends at its end were added": body.rstrip(b"\r\n"),
        "white space around it was added": body.strip(),
        "its line ends were changed": body.replace(b"\r\n", b"\n"),
        "a byte order mark was put before it": body.removeprefix(b"\xef\xbb\xbf"),
    }
    for change, other in bodies.items():
        if other != body and _fits(message_id, sent_s, other, given, signers):
            return f"the body was changed: {change}; verify the bytes as they arrived"
    postback_id = request.headers.get("postback-id", message_id)
    if postback_id != message_id and _fits(postback_id, sent_s, body, given, signers):
        return f"its webhook-id was changed; it was {postback_id[:255]}"
    return (
        "no signature fits: the body, webhook-id or webhook-timestamp was changed on the way, "
        "or it was signed with another secret"
    )


def _signatures(header: str) -> list[bytes]:
    found: list[bytes] = []
    for one in header.split():
        version, _, text = one.partition(",")
        if version == "v1":
            try:
                found.append(base64.b64decode(text, validate=True))
            except binascii.Error:
                continue
    return found


def _length(length_s: float) -> str:
    for unit_s, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if length_s >= 2 * unit_s:
            return f"{length_s / unit_s:.0f} {unit}"
    return f"{length_s:.0f} s"


def _as_json(request: Request, finding: Finding) -> dict[str, object]:
    headers = request.headers
    return {
        "ours": finding.ours,
        "reason": finding.reason,
        "detail": finding.words,
        "id": headers.get("webhook-id") or headers.get("postback-id"),
        "age_s": None if finding.age_s is None else round(finding.age_s, 1),
        "signatures": len(_signatures(headers.get("webhook-signature", ""))),
    }


# -- what is given -----------------------------------------------------------------------------------


def _signer(secret: str) -> Webhook:
    from standardwebhooks import Webhook

    text = secret.strip().removeprefix("whsec_")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise click.UsageError(
            "--secret is none: whsec_ and base64, as `postbacks account secret rotate` prints it."
        )
    return Webhook(key)


def _requests(stdin: BinaryIO, head: BinaryIO | None) -> Iterator[Request]:
    if head is not None:
        body = stdin.read(_MAX_BYTES + 1)
        yield _whole(_head(head.read(_MAX_BYTES)), body)
        return
    first = stdin.readline(_MAX_BYTES)
    if not first.lstrip().startswith(b"{"):
        data = first + stdin.read(_MAX_BYTES + 1)
        if data.strip():
            yield _raw(data)
        return
    line = first
    while line:  # as they come: a receiver may be at the other end
        if line.strip():
            yield _from_json(line)
        line = stdin.readline(_MAX_BYTES)


def _from_json(line: bytes) -> Request:
    try:
        shown = json.loads(line)
        headers = {str(name).lower(): str(value) for name, value in shown["headers"].items()}
        return Request(headers, shown["body"].encode())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise click.UsageError(
            "Standard input is no JSON line of `postbacks receive --json` (with headers and body)."
        ) from None


def _raw(data: bytes) -> Request:
    ends = [(data.find(mark), mark) for mark in (b"\r\n\r\n", b"\n\n") if mark in data]
    if not ends:
        raise click.UsageError("Standard input has no empty line between a head and a body.")
    at, mark = min(ends)
    return _whole(_head(data[:at]), data[at + len(mark) :])


def _head(data: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in data.decode("latin-1").splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() and " " not in name.strip():  # the request line has spaces
            headers[name.strip().lower()] = value.strip()
    return headers


def _whole(headers: dict[str, str], body: bytes) -> Request:
    """The request with the body that its head promises: what an editor added at the end is not part of it."""
    if len(body) > _MAX_BYTES:
        raise click.UsageError(f"The request is longer than {_MAX_BYTES // 1024 // 1024} MiB.")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        raise click.UsageError("The body is in chunks: give it joined, with a Content-Length or without.")
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdecimal()):
        return Request(headers, body)
    if len(body) < int(length[:18]):
        raise click.UsageError(
            f"The body is cut off: {len(body)} bytes of the {length} that its head promises."
        )
    return Request(headers, body[: int(length)])
