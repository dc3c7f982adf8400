"""Events, accounts and backlogs: real calls where calls are measured, copies of a real message elsewhere."""

from __future__ import annotations

import base64
import json
import uuid
from typing import TYPE_CHECKING

from benchmarks.scenario import until
from postbacks import keys, send_postbacks
from postbacks.accounts import make_account, redis_accounts
from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import render
from postbacks.ledger.digest import digest_of
from postbacks.ledger.phases import Phases
from postbacks.ledger.record import SCHEMA, Attempt
from postbacks.queue.rows import AcceptRow
from postbacks.queue.scripts import Scripts
from postbacks.urls import endpoint_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import redis

_PUSH = 500


def mark(number: int) -> str:
    """Make the mark by which the receiver knows a postback."""
    return f"BENCH-{number:010d}"


def mt(number: int) -> dict[str, str]:
    """A delivery receipt."""
    return {
        "ORIGIN": "SMS_MT", "CODE": "N202", "STATUS": "Message Sent/Delivered", "FROM": "86717",
        "TO": "15552312102", "TRACKINGID": mark(number), "SPID": "0007",
        "TIMESTAMP": "2013-11-05T05:41:08-05:00",
    }  # fmt: skip


def mo(number: int) -> dict[str, str]:
    """Somebody wrote."""
    return {
        "ORIGIN": "SMS_MO", "CODE": "N211", "FROM": "15552312102", "TO": "86717",
        "TEXT": f"STOP {mark(number)}", "RECEIVED": "2013-11-05T05:41:08-05:00",
    }  # fmt: skip


def document(number: int) -> bytes:
    """The XML of a delivery receipt."""
    return render(parse_event(mt(number)))


def delivered(number: int, at_ms: int) -> str:
    """Make the note of a POST over a kept connection that was answered 200 after 35 ms."""
    phases = Phases(lookup_ms=0, wait_ms=34, read_ms=1)
    return Attempt(number, at_ms, "delivered", 200, 35, phases=phases, address="192.0.2.7").to_json()


def set_accounts(names: Sequence[str], url: Callable[[int], str]) -> None:
    """Store accounts, the n-th with its URL."""
    store = redis_accounts()
    for number, name in enumerate(names):
        store.set(make_account(name, url=url(number)))


class Messages:
    """Celery messages of ``send_postback``, copied from one that it has sent: 50,000 in a second.

    Args:
        client: of a broker whose queue is empty.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        (postback_id,) = send_postbacks("account-name", [mt(0)])
        envelope = json.loads(client.rpop(keys.QUEUE))
        self._body = base64.b64decode(envelope["body"]).decode()
        assert mark(0) in self._body
        envelope["body"], envelope["properties"]["delivery_tag"] = "the-body", "the-tag"
        self._text = json.dumps(envelope).replace(postback_id, "the-id")

    def push(self, numbers: Iterable[int], account: Callable[[int], str]) -> None:
        """Put one message a number into Celery's queue."""
        texts: list[str] = []
        for number in numbers:
            name = account(number)
            body = self._body.replace(mark(0), mark(number)).replace("account-name", name)
            texts.append(
                self._text.replace("the-id", str(uuid.uuid4()))
                .replace("the-tag", str(uuid.uuid4()))
                .replace("the-body", base64.b64encode(body.encode()).decode())
                .replace("account-name", name)
            )
            if len(texts) == _PUSH:
                self._client.lpush(keys.QUEUE, *texts)
                texts = []
        if texts:
            self._client.lpush(keys.QUEUE, *texts)


def accept(client: redis.Redis, numbers: Iterable[int], account: Callable[[int], tuple[str, str]]) -> None:
    """Put delivery receipts into their lanes by the script of the tick, for backlogs of a million."""
    scripts, token = Scripts(client), f"bench:{uuid.uuid4()}"
    xml = document(0)
    rows: list[AcceptRow] = []

    def send() -> None:
        until(lambda: scripts.take_in(token, 10_000, 0) is not None, 20, "the intake")  # a tick may hold it
        assert scripts.accept(token, SCHEMA, 10_000_000, 1 << 50, 0, rows) is not None
        rows.clear()

    for number in numbers:
        name, url = account(number)
        numbered = xml.replace(mark(0).encode(), mark(number).encode())
        rows.append(
            AcceptRow(str(uuid.uuid4()), name, "mt", "SMS_MT", "N202", url, endpoint_of(url), numbered,
             "waiting", "", b"", "", digest_of(name, numbered, None), "0")
        )  # fmt: skip
        if len(rows) == _PUSH:
            send()
    if rows:
        send()
    scripts.end_intake(token)
