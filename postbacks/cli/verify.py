"""``postbacks verify``: check a request's signature, and say what is wrong with it."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
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

#: Most bytes of a request that are read; a postback has a few KiB.
_MAX_BYTES: Final = 4 * 1024 * 1024
_SIGNATURE_HEADERS: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")


@dataclass(frozen=True, slots=True)
class Request:
    """A captured request; the names of its headers are in lower case."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of a check.

    Attributes:
        reason: ``ok``, or the first thing that is wrong with the request.
        words: the reason in words.
        age_s: seconds since it was signed, where that is known.
    """

    reason: str
    words: str
    age_s: float | None = None

    @property
    def ours(self) -> bool:
        """True if the signature is valid and recent."""
        return self.reason == "ok"


def _files(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Read secrets from files; refuse standard input, which is the request."""
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
    help="Secret of the account. Can be repeated, for an overlap. @FILE keeps it out of lists of processes.",
)
@click.option(
    "--tolerance",
    "tolerance_s",
    type=float,
    default=300.0,
    show_default=True,
    metavar="S",
    callback=seconds,
    help="Most seconds between the time of its signing and now.",
)
@click.option(
    "--headers",
    "head",
    type=click.File("rb"),
    metavar="FILE",
    help="Read the headers from this file; stdin is the body alone.",
)
@json_option
def verify(secrets: tuple[str, ...], tolerance_s: float, head: BinaryIO | None, as_json: bool) -> None:
    """Check the signature of a request on stdin.

    A request is its head and its body as they arrived, or a JSON line of `postbacks receive --json`, of which there may
    be many. It says "ours" if the request was signed with the secret, is unchanged and is recent, and else what is wrong
    with it.

    Exit codes: 0 all are ours; 1 one is not; 2 there is no request or no secret.
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
            request_id = request.headers.get("webhook-id") or request.headers.get("postback-id") or "-"
            click.echo(f"{printable(request_id)}  {verdict}: {printable(finding.words)}")
    if not count:
        raise click.UsageError("Standard input holds no request.")
    if not all_ours:
        raise click.exceptions.Exit(1)


def examine(request: Request, signers: Sequence[Webhook], tolerance_s: float, now_s: float) -> Finding:
    """Judge a request: signed with one of the secrets, unchanged, and recent?

    The library's own ``verify()`` has a fixed tolerance of five minutes, and does not tell an old request from a changed
    one. So the library makes the signature, and it is compared here.
    """
    missing = [name for name in _SIGNATURE_HEADERS if not request.headers.get(name)]
    if missing:
        words = f"it has no {', '.join(missing)}"
        if len(missing) == len(_SIGNATURE_HEADERS):
            words += ": it is not signed (has the account a secret?), or a proxy took the headers off"
        return Finding("missing_header", words)
    stamp = request.headers["webhook-timestamp"]
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) < 12):
        return Finding("bad_timestamp", f"its webhook-timestamp {stamp[:40]!r} is no time in seconds")
    sent_s = int(stamp)
    signatures = _signatures(request.headers["webhook-signature"])
    if not signatures:
        return Finding("bad_signature", "its webhook-signature holds no v1,… signature")
    age_s = now_s - sent_s
    if not _fits(request.headers["webhook-id"], sent_s, request.body, signatures, signers):
        return Finding("mismatch", _mismatch_words(request, sent_s, signatures, signers), age_s)
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
    message_id: str, sent_s: int, body: bytes, signatures: Sequence[bytes], signers: Sequence[Webhook]
) -> bool:
    """Tell whether one of the signatures is one of the signers' for this id, time and body."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return False  # the body of a postback is UTF-8
    sent_at = datetime.fromtimestamp(sent_s, UTC)
    expected = [
        base64.b64decode(signer.sign(message_id, sent_at, text).partition(",")[2]) for signer in signers
    ]
    return any(hmac.compare_digest(ours, theirs) for ours in expected for theirs in signatures)


def _mismatch_words(
    request: Request, sent_s: int, signatures: Sequence[bytes], signers: Sequence[Webhook]
) -> str:
    """Say what was changed, found by trying usual changes."""
    message_id, body = request.headers["webhook-id"], request.body
    bodies = {
        "line ends at its end were added": body.rstrip(b"\r\n"),
        "white space around it was added": body.strip(),
        "its line ends were changed": body.replace(b"\r\n", b"\n"),
        "a byte order mark was put before it": body.removeprefix(b"\xef\xbb\xbf"),
    }
    for change, original in bodies.items():
        if original != body and _fits(message_id, sent_s, original, signatures, signers):
            return f"the body was changed: {change}; verify the bytes as they arrived"
    postback_id = request.headers.get("postback-id", message_id)
    if postback_id != message_id and _fits(postback_id, sent_s, body, signatures, signers):
        return f"its webhook-id was changed; it was {postback_id[:255]}"
    return (
        "no signature fits: the body, webhook-id or webhook-timestamp was changed on the way, "
        "or it was signed with another secret"
    )


def _signatures(header: str) -> list[bytes]:
    signatures: list[bytes] = []
    for word in header.split():
        version, _, text = word.partition(",")
        if version == "v1":
            try:
                signatures.append(base64.b64decode(text, validate=True))
            except binascii.Error:
                continue
    return signatures


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


# -- input -------------------------------------------------------------------------------------------


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
    while line:  # each as it comes, as a receiver may be writing them
        if line.strip():
            yield _from_json(line)
        line = stdin.readline(_MAX_BYTES)


def _from_json(line: bytes) -> Request:
    try:
        values = json.loads(line)
        headers = {str(name).lower(): str(value) for name, value in values["headers"].items()}
        return Request(headers, values["body"].encode())
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
        if colon and name.strip() and " " not in name.strip():  # not the request line, which has spaces
            headers[name.strip().lower()] = value.strip()
    return headers


def _whole(headers: dict[str, str], body: bytes) -> Request:
    """Return a request whose body has the length that its head promises: an editor may have added a line end."""
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
