"""Requests that a receiver must survive: each as bytes, with the answers that are right and whether it is stored."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Final

#: In place of a status: the connection was closed, or nothing came while the rest of the request is missing.
CLOSED, SILENT = "closed", "no answer"
HUGE: Final = "a body of 3 GB, by its length"
ENDLESS: Final = "chunks without an end"
#: More than a receiver takes.
BODY_BYTES_MAX: Final = 2 * 1024 * 1024
BODY: Final = (
    b"<?xml version='1.0' encoding='UTF-8'?>\n<POSTBACK><ORIGIN>SUB</ORIGIN><CODE>N301</CODE>"
    b"<MOBILE>15552312102</MOBILE><CAMPAIGNID>17041</CAMPAIGNID></POSTBACK>"
)
_LAUGHS: Final = b"".join(
    b'<!ENTITY l%d "%s">' % (number, b"&l%d;" % (number - 1) * 10) for number in range(1, 10)
)


@dataclass(frozen=True)
class Hostile:
    """A hostile request.

    Attributes:
        name: what is wrong with it.
        request: its bytes; several are sent at once, each over a connection of its own.
        answers: the statuses, or words of this module, that are right.
        stored_id: id under which it is stored, empty where nothing may be stored.
        is_whole: False if no answer is due, as the rest of the request is missing.
    """

    name: str
    request: bytes | tuple[bytes, ...]
    answers: frozenset[str]
    stored_id: str = ""
    is_whole: bool = True


def signature(secret: str, postback_id: str, timestamp: str, body: bytes) -> str:
    """Sign as Standard Webhooks says."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{postback_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def request(
    secret: str,
    postback_id: str,
    body: bytes = BODY,
    *,
    sequence: int = 1_383_648_069_212,
    age_s: int = 0,
    **headers: str | None,
) -> bytes:
    """Make a signed request; ``headers`` replace those of the same name, and None takes one off."""
    timestamp = headers.get("webhook_timestamp") or str(int(time.time()) - age_s)
    fields = {
        "host": "127.0.0.1",
        "content-type": "application/xml; charset=utf-8",
        "content-length": str(len(body)),
        "postback-id": postback_id,
        "postback-sequence": str(sequence),
        "webhook-id": postback_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": signature(secret, postback_id, timestamp, body),
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}\r\n" for name, value in fields.items() if value is not None]
    return f"POST /postbacks HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body


def hostile_requests(secret: str) -> list[Hostile]:
    """Make the requests, signed with the secret where the hostility is in the body or in the id."""
    other = "whsec_" + base64.b64encode(b"another secret of 32 bytes ......").decode()
    now = str(int(time.time()))
    good = signature(secret, "two-signatures", now, BODY)
    chunks = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

    def refused(name: str, sent: bytes, *answers: int | str) -> Hostile:
        return Hostile(name, sent, frozenset(map(str, answers)))

    def bad_body(name: str, body: bytes) -> Hostile:
        return refused(name, request(secret, "bad-body", body), 400)

    return [
        Hostile("a body that never comes whole", request(secret, "slow")[:-1], frozenset({SILENT}), is_whole=False),
        refused("no signature", request(secret, "unsigned", webhook_signature=None), 401),
        refused("a signature of another secret", request(other, "other-secret"), 401),
        refused("a signature of another id", request(secret, "stolen", webhook_id="mine"), 401),
        refused("a signature of another body", request(secret, "changed").replace(b"N301", b"N302"), 401),
        refused("a signature of an unknown version", request(
            secret, "v2", webhook_signature=signature(secret, "v2", now, BODY).replace("v1", "v2"), webhook_timestamp=now,
        ), 401),
        refused("a time 6 minutes ago", request(secret, "old", age_s=360), 401),
        refused("a time 6 minutes ahead", request(secret, "early", age_s=-360), 401),
        refused("a time that is no number", request(secret, "no-time", webhook_timestamp=f"{now}.0"), 401),
        # PHP has both as one text, which is no id.
        refused("webhook-id twice", request(secret, "twice").replace(b"\r\n\r\n", b"\r\nwebhook-id: other\r\n\r\n"), 400, 401),
        refused("an id of 10,000 characters", request(secret, "x" * 10_000), 400, 431),
        refused("GET", b"GET /postbacks HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 405),
        bad_body("an empty body", b""),
        bad_body("JSON", b'{"ORIGIN": "SUB", "CODE": "N301"}'),
        bad_body("a DOCTYPE", BODY.replace(b"<POSTBACK>", b"<!DOCTYPE POSTBACK><POSTBACK>")),
        bad_body("an external entity", BODY.replace(
            b"<POSTBACK>", b'<!DOCTYPE P [<!ENTITY e SYSTEM "file:///etc/passwd">]><POSTBACK>').replace(b"17041", b"&e;")),
        bad_body("a billion laughs", BODY.replace(
            b"<POSTBACK>", b'<!DOCTYPE P [<!ENTITY l0 "ha">' + _LAUGHS + b"]><POSTBACK>").replace(b"17041", b"&l9;")),
        bad_body("100,000 elements inside of each other", b"<a>" * 100_000 + b"</a>" * 100_000),
        bad_body("bytes that are no UTF-8", BODY.replace(b"17041", b"\xff\xc0\xaf")),
        bad_body("UTF-16", BODY.decode().replace("UTF-8", "UTF-16").encode("utf-16")),
        bad_body("UTF-16 without its mark", BODY.decode().encode("utf-16-le")),
        bad_body("a NUL", BODY.replace(b"17041", b"17\x0041")),
        refused(HUGE, request(secret, "huge", content_length="3000000000"), 413),
        refused(ENDLESS, request(
            secret, "chunks", b"", content_length=None, transfer_encoding="chunked",
        ) + chunks * (BODY_BYTES_MAX // 0x10000 + 1), 413, 411, CLOSED),
        # What follows is odd, but ours: the answer is 200.
        Hostile("an id that is a path", request(secret, "../../../escaped"), frozenset({"200"}), "../../../escaped"),
        Hostile("a second signature that fits", request(
            secret, "two-signatures", webhook_timestamp=now,
            webhook_signature=f"{signature(other, 'two-signatures', now, BODY)} {good}",
        ), frozenset({"200"}), "two-signatures"),
        Hostile("the same id 32 times at once", (request(secret, "at-once"),) * 32, frozenset({"200"}), "at-once"),
        Hostile("a known id with another body", request(
            secret, "at-once", BODY.replace(b"N301", b"N302"), sequence=1_383_648_069_999,
        ), frozenset({"200"}), "at-once"),
        Hostile("an unknown code and an unknown tag", request(
            secret, "unknown", BODY.replace(b"N301", b"N999").replace(b"17041", b"17042").replace(
                b"</POSTBACK>", b"<NEW><A><B>x</B></A></NEW></POSTBACK>"),
        ), frozenset({"200"}), "unknown"),
    ]  # fmt: skip
