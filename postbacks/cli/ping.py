"""``postbacks ping``: the receiver doctor."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import click

from postbacks.cli import arguments
from postbacks.cli.base import Command, json_option, note, print_json
from postbacks.printable import plain

if TYPE_CHECKING:
    from postbacks.catalogue import Event
    from postbacks.ping.diagnose import Advice
    from postbacks.settings import Settings
    from postbacks.transport.probe import Probe
    from postbacks.transport.profile import Profile


class _Target(NamedTuple):
    """Where a test postback goes, and how."""

    account: str | None
    url: str
    profile: Profile
    now_ms: int


class _Step(NamedTuple):
    """One line of the course: whether it came so far, whether that was in order, how long it took."""

    name: str
    reached: bool
    right: bool
    took_s: float
    words: str


@click.command(
    cls=Command,
    examples=(
        "postbacks ping acme",
        "postbacks ping https://acme.example/postbacks --json",
        "postbacks ping acme --event event.json",
    ),
)
@click.argument("target", metavar="ACCOUNT|URL", callback=arguments.text)
@click.option(
    "--event",
    "file",
    type=click.File("rb"),
    metavar="FILE",
    callback=arguments.file,
    help="Send this event instead of a SUB N301.",
)
@json_option
def ping(target: str, file: BinaryIO | None, as_json: bool) -> None:
    """Send one test postback, and say what a receiver would get wrong.

    It goes out at once, from this machine: not through the queue, and nothing of it stands in the ledger. It is a true
    SUB N301 with the header Postback-Test: 1, sent as the account's are (its URL, limits, headers, TLS, signatures),
    and to the networks and ports that the workers send to.

    A URL with a password may stand in a file (@FILE) or on standard input (-).

    Waits up to 3 times longer than the limits, to tell by how much they are missed.

    Exit codes: 0 it would count as delivered; 1 it would not; 2 wrong use.
    """
    from postbacks.catalogue.xml import render
    from postbacks.ping.diagnose import diagnose
    from postbacks.ping.observe import observe

    event = _event(file)
    to = _target(target, event)
    body = render(event)
    settings = _workers_settings()
    if not as_json:
        _print_what_is_sent(to, event, body)
    from postbacks.cli.base import stderr_console

    with stderr_console().status("Waiting for the answer…"):
        seen = observe(to.url, body, to.profile, settings, to.now_ms)
    advice = diagnose(seen, settings)
    if as_json:
        print_json(_as_json(to, event, seen, advice))
    else:
        _print(seen, advice)
    if not seen.outcome.delivered:
        raise click.exceptions.Exit(1)


def _workers_settings() -> Settings:
    """Return this process's settings with what the workers say they send to, where a broker and a worker are there."""
    from postbacks.errors import BrokerError
    from postbacks.settings import load
    from postbacks.url_policy import worker_policies

    try:
        policies = worker_policies()
    except BrokerError:  # a URL can be pinged without one
        policies = []
    return policies[0] if policies else load()


def _event(file: BinaryIO | None) -> Event:
    from postbacks.cli.events import read_events
    from postbacks.ping.observe import test_event

    if file is None:
        return test_event()
    events = read_events(file)
    if len(events) > 1:
        raise click.UsageError(f"A ping is one postback; this file holds {len(events)} events.")
    return events[0]


def _target(target: str, event: Event) -> _Target:
    """The URL that was given, or the account's for this event with its profile.

    A URL alone needs no broker, and so it gets our own clock.
    """
    from postbacks.accounts import UNREADABLE, check_name, find_accounts, store
    from postbacks.accounts.routing import end_words, reason_words, route
    from postbacks.broker.client import client
    from postbacks.broker.clock import now_ms
    from postbacks.broker.errors import broker_errors
    from postbacks.errors import UnknownAccount
    from postbacks.settings import load
    from postbacks.transport.profile import Profile
    from postbacks.urls import check_url

    if "/" in target:  # no account's name has one
        return _Target(None, check_url(target), Profile.default(load()), int(time.time() * 1000))
    name = check_name(target)
    account = find_accounts(store(), [name]).get(name)
    if account is None:
        raise UnknownAccount(
            f"There is no account {name!r}: make it (postbacks account set {name} --url https://…) or give a URL."
        )
    account.check_known()
    url, reason = route(account, event.origin, event.group, None)
    if url is None:
        words = reason_words(reason, event.origin, f"Account {name}")
        hint = "" if reason == UNREADABLE else " --event FILE sends another event."
        raise click.ClickException(f"{words}: its postbacks would be {end_words(reason)}.{hint}")
    with broker_errors():
        broker_now_ms = now_ms(client())
    return _Target(name, check_url(url), Profile.of(account, load(), broker_now_ms), broker_now_ms)


# -- in words --------------------------------------------------------------------------------------


def _print_what_is_sent(to: _Target, event: Event, body: bytes) -> None:
    from postbacks.urls import redacted

    count = len(to.profile.signers)
    signed = {0: "not signed", 1: "signed"}.get(count, f"signed with {count} secrets")
    account = f"account {to.account}, " if to.account else ""
    click.echo(f"POST {click.style(plain(redacted(to.url)), bold=True)}")
    click.echo(
        f"     {account}{event.origin} {event.code}, {len(body)} bytes, {signed}, marked Postback-Test: 1\n"
    )
    note("A test: not through the queue, and not in the ledger.\n")


def _print(seen: Probe, advice: Advice) -> None:
    for step in _steps(seen):
        mark = click.style("ok", fg="green") if step.right else click.style("!!", fg="red", bold=True)
        click.echo(f"  {mark}  {step.name:8}{_length(step.took_s)}   {plain(step.words)}")
    limits = f"{seen.limits.connect_timeout_s:g} s to connect, {seen.limits.answer_timeout_s:g} s to answer"
    click.echo(f"      {'total':8}{_length(seen.total_s)}   allowed: {limits}\n")
    delivered = seen.outcome.delivered
    word = (
        click.style("Delivered", fg="green", bold=True)
        if delivered
        else click.style("Not delivered", fg="red", bold=True)
    )
    click.echo(f"{word}: {plain(advice.verdict)}.")
    if advice.todo:
        click.echo(plain(advice.todo))
    excerpt = seen.waited.excerpt.strip()
    if excerpt:
        click.echo(f"Its answer begins: {plain(excerpt)}")
    for one in advice.noticed:
        click.echo(f"{click.style('Note', fg='yellow')}: {plain(one)}.")


def _length(length_s: float) -> str:
    return f"{length_s * 1000:8.1f} ms" if length_s < 1 else f"{length_s:8.2f} s "


def _steps(seen: Probe) -> list[_Step]:
    """The steps so far; of one that failed the last is not right."""
    from postbacks.urls import endpoint_of

    moments = [
        ("DNS", seen.resolved_s, _name_words(seen)),
        ("TCP", seen.connected_s, f"connected to {seen.address}"),
        *(
            [("TLS", seen.secured_s, _tls_words(seen))]
            if endpoint_of(seen.url).startswith("https://")
            else []
        ),
        ("request", seen.sent_s if seen.connecting_s is not None else None, "sent"),
        ("answer", seen.header_s, _answer_words(seen)),
    ]
    steps: list[_Step] = []
    before_s = 0.0
    for name, at_s, words in moments:
        if at_s is None:
            took_s = max(0.0, seen.total_s - before_s)
            steps.append(_Step(name, False, False, took_s, _fault_words(name, seen)))
            return steps
        steps.append(_Step(name, True, True, max(0.0, at_s - before_s), words))
        before_s = at_s
    if not seen.outcome.delivered:
        late = seen.outcome.name == "connect_timeout"  # it stood in the end: the slowest step is to blame
        at = max(range(len(steps) - 2), key=lambda number: steps[number].took_s) if late else len(steps) - 1
        steps[at] = steps[at]._replace(right=False)
    return steps


def _fault_words(name: str, seen: Probe) -> str:
    detail = seen.outcome.detail or seen.outcome.name
    if name == "TLS" and seen.certificate is not None:
        return f"{detail.partition(' (')[0]}: {_certificate_words(seen)}"
    return detail


def _name_words(seen: Probe) -> str:
    from postbacks.settings import load
    from postbacks.urls import read_url

    host = read_url(seen.url).host
    address = seen.address.rpartition(":")[0].strip("[]")
    if load().proxy_url:
        return "of the proxy, through which all goes"
    return host if address in {"", host} else f"{host} is {address}"


def _tls_words(seen: Probe) -> str:
    return ", ".join(filter(None, (seen.tls_version, _certificate_words(seen))))


def _certificate_words(seen: Probe) -> str:
    from postbacks.ping.diagnose import days_left

    certificate, days = seen.certificate, days_left(seen)
    if certificate is None or days is None:
        return ""
    names = ", ".join(certificate.names[:3]) or "no name"
    more = len(certificate.names) - 3
    left = f"{days} days left" if days >= 0 else f"ended on {certificate.ends:%Y-%m-%d}"
    return f"certificate for {names}{f' and {more} more' if more > 0 else ''} by {certificate.issuer}, {left}"


def _answer_words(seen: Probe) -> str:
    from http.client import responses as reasons

    from postbacks.ping.diagnose import location

    if seen.status is None:
        return ""
    target = location(seen)
    words = f"{seen.status} {reasons.get(seen.status, '')}".strip() + (f" to {target}" if target else "")
    return words + (f", HTTP/{seen.http}" if seen.http else "")


def _as_json(to: _Target, event: Event, seen: Probe, advice: Advice) -> dict[str, Any]:
    from postbacks.ping.diagnose import days_left, location
    from postbacks.urls import redacted

    certificate = seen.certificate
    tls = None
    if seen.secured_s is not None:
        tls = {
            "version": seen.tls_version or None,
            "names": list(certificate.names) if certificate else [],
            "issuer": certificate.issuer if certificate else None,
            "ends": certificate.ends.isoformat().replace("+00:00", "Z") if certificate else None,
            "days_left": days_left(seen),
        }
    steps = {f"{step.name.lower()}_ms": round(step.took_s * 1000, 1) for step in _steps(seen) if step.reached}
    return {
        "account": to.account,
        "url": redacted(to.url),
        "id": seen.postback_id,
        "origin": event.origin,
        "code": event.code,
        "delivered": seen.outcome.delivered,
        "outcome": seen.outcome.name,
        "status": seen.status,
        "detail": seen.outcome.detail,
        "verdict": advice.verdict,
        "advice": advice.todo,
        "notes": list(advice.noticed),
        "location": location(seen) or None,
        "signatures": len(to.profile.signers),
        "limits": {
            "connect_s": seen.limits.connect_timeout_s,
            "answer_s": seen.limits.answer_timeout_s,
        },
        "steps": steps | {"total_ms": round(seen.total_s * 1000, 1)},
        "address": seen.address or None,
        "tls": tls,
        "keeps_alive": None if seen.status is None else not seen.closes,
        "excerpt": seen.waited.excerpt,
    }
