"""Commands that repeat the POST of a postback with curl, for a customer's developers: no secret is in them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from postbacks.delivery.request import headers
from postbacks.errors import PostbacksError
from postbacks.transport.profile import Profile
from postbacks.urls import endpoint_of, redacted

if TYPE_CHECKING:
    from postbacks.accounts import Account
    from postbacks.ledger.record import Record
    from postbacks.settings import Settings


def curl_command(record: Record, account: Account | None, settings: Settings) -> str:
    """Write the command that repeats the latest POST of a postback, or makes its first: the same bytes, the same limits.

    What may be a secret is left out and named in a comment: signature, Authorization, the account's own headers, user and
    query of the URL, its client certificate.

    Args:
        record: the postback, with its document.
        account: its account; None where the store does not have it.
        settings: for the limits of an account that sets none.

    Raises:
        PostbacksError: it goes nowhere.
    """
    if not record.url:
        raise PostbacksError(f"Postback {record.id} goes nowhere: no URL was known for it.")
    profile = Profile.default(settings)
    number = record.attempts[-1].number if record.attempts else 1
    lines = headers(
        profile, record.xml, postback_id=record.id, number=number, created_ms=record.created_ms,
        sequence=record.sequence, at_ms=record.created_ms,
    )  # fmt: skip
    url = urlsplit(redacted(record.url))
    options = [
        "--http1.1",
        "--include",
        "--globoff",
        f"--connect-timeout {(account and account.connect_timeout_s) or profile.connect_timeout_s:g}",
        *(f"--header {shlex.quote(line)}" for line in ("Expect:", *lines)),
        "--data-binary @-",
        shlex.quote(url._replace(query="").geturl()),
    ]
    return "\n".join(
        [
            f"# POST {number} of postback {record.id}, accepted at {record.to_public_dict()['created']}.",
            *_comments(record, account, url.query),
            f"{_print_command(record.xml)} |",
            "  curl " + " \\\n    ".join(options),
        ]
    )


def _comments(record: Record, account: Account | None, query: str) -> list[str]:
    """Name what is left out, and what the account's TLS would do."""
    left_out = []
    if "@" in urlsplit(record.url).netloc:
        left_out.append("the user of the URL")
    if query:
        left_out.append(f"the query of the URL ({query})")
    comments = []
    if account is None:
        comments.append(
            "# What its account adds (headers, signature) is missing: the account is not known here."
        )
    else:
        if account.secrets:
            left_out.append("the signature (webhook-id, webhook-timestamp, webhook-signature)")
        endpoints = {endpoint_of(account_url) for account_url in account.urls()}
        if not record.own_url or endpoint_of(record.url) in endpoints:
            left_out += ["Authorization"] if account.authorization else []
            left_out += sorted(account.headers)
            left_out += ["the client certificate"] if account.client_cert else []
            if account.ca_bundle:
                comments.append("# The account trusts authorities of its own: give them with --cacert FILE.")
    if left_out:
        comments.insert(0, f"# Left out, as they may be secret: {', '.join(left_out)}.")
    return comments


def _print_command(document: bytes) -> str:
    """Write the command that prints a document byte for byte, itself of printable characters and line ends alone."""
    text = document.decode("utf-8", "surrogateescape")
    if all(c.isprintable() or c == "\n" for c in text):
        return f"printf %s {shlex.quote(text)}"
    escaped = "".join(
        c
        if c.isprintable() and c != "\\"
        else "".join(f"\\0{byte:03o}" for byte in c.encode("utf-8", "surrogateescape"))
        for c in text
    )
    return f"printf %b {shlex.quote(escaped)}"
