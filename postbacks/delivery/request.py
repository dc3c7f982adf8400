"""Headers of a POST, and the single POST of an event without queue, ledger and resend."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from postbacks.accounts import find_account
from postbacks.accounts.routing import end_of, reason_words, route
from postbacks.catalogue.xml import render
from postbacks.errors import BrokerUnreachable, PostbackDead, PostbackFailed, PostbackSkipped
from postbacks.ledger.record import iso
from postbacks.logs import EventLog
from postbacks.settings import load
from postbacks.transport.client import CurlClient
from postbacks.transport.profile import Profile
from postbacks.transport.transfer import Transfer
from postbacks.version import VERSION

if TYPE_CHECKING:
    from postbacks.accounts import Account
    from postbacks.catalogue import Event
    from postbacks.queue.send_request import SendRequest
    from postbacks.transport.outcomes import Outcome

log = EventLog(__name__)

USER_AGENT: Final = f"postbacks/{VERSION}"

_FIXED: Final = ("Content-Type: application/xml; charset=utf-8", f"User-Agent: {USER_AGENT}")


def headers(
    profile: Profile,
    body: bytes,
    *,
    postback_id: str,
    number: int,
    created_ms: int,
    sequence: int,
    at_ms: int,
) -> list[str]:
    """Return the headers of a POST, ``Name: value`` each.

    libcurl adds Host, Accept and Content-Length; ``transport/handle.py`` adds Authorization. An account cannot set
    headers of the prefixes ``Postback-`` and ``webhook-`` (``accounts/headers.py``).

    Args:
        profile: the account's extra headers and secrets.
        body: the document, which is signed.
        postback_id: the postback's id.
        number: number of the attempt, 1 for the first POST.
        created_ms: time of the event's acceptance.
        sequence: number of the postback in its account.
        at_ms: begin of this POST; both times on the broker's clock.
    """
    lines = [
        *_FIXED,
        f"Postback-Id: {postback_id}",
        f"Postback-Attempt: {number}",
        f"Postback-Created: {iso(created_ms)}",
        f"Postback-Sequence: {sequence}",
        *profile.headers,
    ]
    if profile.signers:
        lines += signature(postback_id, at_ms, body, profile)
    return lines


def signature(postback_id: str, at_ms: int, body: bytes, profile: Profile) -> list[str]:
    """Return the headers of Standard Webhooks: the time of this attempt, and one signature a secret."""
    moment = datetime.fromtimestamp(at_ms // 1000, UTC)
    text = body.decode()
    signatures = " ".join(signer.sign(postback_id, moment, text) for signer in profile.signers)
    return [
        f"webhook-id: {postback_id}",
        f"webhook-timestamp: {at_ms // 1000}",
        f"webhook-signature: {signatures}",
    ]


def post_request(postback_id: str, request: SendRequest, *, eager: bool) -> dict[str, Any]:
    """Make the POST of a call, as a worker would make the account's; returns outcome, status and number of attempts.

    For eager mode, and for ``send_postback`` called as a function.

    Args:
        postback_id: the task id.
        request: account, event, and the call's own URL.
        eager: Celery is in eager mode, so there may be no broker: then a URL that came with the call is enough.

    Raises:
        PostbackSkipped: the account does not want it.
        PostbackDead: the account is not known, or has no URL for it.
        PostbackFailed: anything but status 200.
        InvalidAccount: the account cannot be used as it is stored.
        BrokerError: the account cannot be looked up.
    """
    account = _find_account(request, eager=eager)
    event = request.event
    url, reason = route(account, event.origin, event.group, request.url)
    if url is None:
        words = reason_words(reason, event.origin, f"account {request.account}")
        if end_of(reason) == "skipped":
            raise PostbackSkipped(f"Postback {postback_id} was skipped: {words} ({reason}).", reason)
        raise PostbackDead(f"Postback {postback_id} cannot be sent: {words} ({reason}).", reason)
    outcome = post_once(postback_id, event, url, account, own_url=request.url is not None)
    if not outcome.delivered:
        words = outcome.detail or outcome.name
        raise PostbackFailed(f"Postback {postback_id} failed: {words}", outcome.name, outcome.status, 1)
    return {"outcome": outcome.name, "status": outcome.status, "attempts": 1}


def _find_account(request: SendRequest, *, eager: bool) -> Account | None:
    try:
        return find_account(request.account)
    except BrokerUnreachable as error:
        if request.url is None or not eager:
            raise
        log.warning("eager.no_broker", f"sent as an unknown account's: {error}", account=request.account)
        return None


def post_once(postback_id: str, event: Event, url: str, account: Account | None, *, own_url: bool) -> Outcome:
    """POST an event to a URL, the call's own or the account's, and return the outcome."""
    body, now_ms = render(event), int(time.time() * 1000)
    profile = Profile.default(load()) if account is None else Profile.of(account, load(), now_ms)
    if own_url and account is not None:
        profile = profile.for_url(url)
    lines = headers(
        profile, body, postback_id=postback_id, number=1, created_ms=now_ms, sequence=1, at_ms=now_ms
    )
    curl = CurlClient(load())
    try:
        return curl.post(Transfer(url, body, lines, profile))
    finally:
        curl.close()
