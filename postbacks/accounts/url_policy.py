"""The URL policy: networks, ports and schemes that the workers send to, published by them in the broker.

A process that sets an account or pings a receiver may have another environment than the workers have, so it judges a URL
by what the workers have published. The guard at their sockets (``guard.py``) decides all the same.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from postbacks import keys
from postbacks.broker.client import client
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import InvalidAccount
from postbacks.guard import early_refusal, setting_of
from postbacks.settings import Settings, load
from postbacks.urls import redacted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Settings that make up a policy: those of the guard.
FIELDS: Final = ("allowed_networks", "denied_networks", "nat64_prefixes", "allowed_ports", "https_only")
#: Seconds between two publications of a worker.
PUBLISH_EVERY_S: Final = 20
#: Seconds for which a policy counts as a running worker's, so that two publications may be lost.
KEPT_S: Final = 3 * PUBLISH_EVERY_S


def publish() -> None:
    """Publish this worker's policy.

    Raises:
        BrokerError: the broker cannot be used.
    """
    policy = load().model_dump_json(include=set(FIELDS))
    with broker_errors():
        broker_now_ms = now_ms(client())
        pipe = client().pipeline(transaction=True)
        pipe.zadd(keys.URL_POLICIES, {policy: broker_now_ms})
        pipe.zremrangebyscore(keys.URL_POLICIES, "-inf", broker_now_ms - KEPT_S * 1000)
        pipe.expire(keys.URL_POLICIES, KEPT_S)
        pipe.execute()


def worker_policies() -> list[Settings]:
    """Read the policies of the running workers, the latest first; empty where no worker has published one.

    Raises:
        BrokerError: the broker cannot be used.
    """
    with broker_errors():
        texts: list[bytes] = client().zrange(  # type: ignore[assignment]
            keys.URL_POLICIES, "+inf", now_ms(client()) - KEPT_S * 1000, desc=True, byscore=True
        )
    return [policy for policy in map(_parse, texts) if policy is not None]


def check_urls(urls: Iterable[str], policies: Sequence[Settings]) -> list[str]:
    """Check that URLs may be sent to, by the workers' policies or, where there are none, by this process's settings.

    Returns:
        Warnings, a sentence for each URL that some workers send to and others do not.

    Raises:
        InvalidAccount: no worker would send to one of the URLs.
    """
    warnings = []
    for url in urls:
        reasons = [early_refusal(url, policy) for policy in policies or [load()]]
        refusals = [reason for reason in reasons if reason]
        if refusals and len(refusals) == len(reasons):
            owner, of_workers = ("the workers'", " of the workers") if policies else ("this process's", "")
            raise InvalidAccount(
                f"By {owner} settings, postbacks may not be sent to {redacted(url)}: {refusals[0]}. "
                f"If they should, see {setting_of(refusals[0])}{of_workers} in docs/settings.md."
            )
        if refusals:
            warnings.append(
                f"the workers do not agree on {redacted(url)}: some of them refuse it ({refusals[0]}). "
                "Give all of them the same settings."
            )
    return warnings


def _parse(text: bytes) -> Settings | None:
    """Parse a policy into settings; None for a policy that a newer version has written in another form."""
    try:
        fields: dict[str, Any] = {"nat64_prefixes": ()} | json.loads(
            text
        )  # 0.1.0 does not publish this field
        return Settings(**{name: fields[name] for name in FIELDS})
    except (ValueError, TypeError, KeyError, ValidationError):
        return None
