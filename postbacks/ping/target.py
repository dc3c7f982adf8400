"""Target of a test POST: an account's URL and profile, or a URL alone, and the settings that the workers send by."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from postbacks.accounts import UNREADABLE, find_account
from postbacks.accounts.routing import end_words, reason_words, route
from postbacks.accounts.url_policy import worker_policies
from postbacks.broker.client import client
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.catalogue.xml import render
from postbacks.errors import BrokerError, PostbacksError, UnknownAccount
from postbacks.names import check_name
from postbacks.ping.diagnose import Advice, diagnose
from postbacks.ping.observe import observe, test_event
from postbacks.settings import Settings, load
from postbacks.transport.profile import Profile
from postbacks.urls import check_url

if TYPE_CHECKING:
    from postbacks.catalogue import Event
    from postbacks.transport.probe import Probe


class Target(NamedTuple):
    """Target of a test postback: URL and profile, of an account or of a URL alone; and the time."""

    account: str | None
    url: str
    profile: Profile
    now_ms: int


class Pinged(NamedTuple):
    """Test POST to an account's URL: where it went, what it has shown, and what to do."""

    target: Target
    probe: Probe
    advice: Advice


def ping_account(name: str) -> Pinged:
    """Send an account a test postback, past queue and ledger.

    Raises:
        UnknownAccount: there is no such account.
        PostbacksError: it has no URL for the test, or cannot be read.
        BrokerError: the broker cannot be used.
    """
    event, settings = test_event(), workers_settings()
    target = find_target(check_name(name), event)
    probe = observe(target.url, render(event), target.profile, settings, target.now_ms)
    return Pinged(target, probe, diagnose(probe, settings))


def workers_settings() -> Settings:
    """Return the settings that the workers have published; this process's, where no broker or worker is running."""
    try:
        policies = worker_policies()
    except BrokerError:  # a URL can be pinged without a broker
        policies = []
    return policies[0] if policies else load()


def find_target(target: str, event: Event) -> Target:
    """Return the URL that was given, or the account's URL for this event with its profile.

    A URL alone needs no broker, so its time is of this machine's clock.

    Raises:
        UnknownAccount: there is no such account.
        InvalidUrl: the URL is none that may be sent to.
        PostbacksError: the account has no URL for this event, or cannot be read.
        BrokerError: the broker cannot be used.
    """
    if "/" in target:  # a URL: no account's name has a slash
        return Target(None, check_url(target), Profile.default(load()), int(time.time() * 1000))
    name = check_name(target)
    account = find_account(name)
    if account is None:
        raise UnknownAccount(
            f"There is no account {name!r}: make it (postbacks account set {name} --url https://…) or give a URL."
        )
    account.check_known()
    url, reason = route(account, event.origin, event.group, None)
    if url is None:
        words = reason_words(reason, event.origin, f"Account {name}")
        hint = "" if reason == UNREADABLE else " --event FILE sends another event."
        raise PostbacksError(f"{words}: its postbacks would be {end_words(reason)}.{hint}")
    with broker_errors():
        broker_now_ms = now_ms(client())
    return Target(name, check_url(url), Profile.of(account, load(), broker_now_ms), broker_now_ms)
