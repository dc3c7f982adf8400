"""``postbacks ping``: send a test postback, and say what the receiver's developers should mend."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import click

from postbacks.cli import arguments
from postbacks.cli.base import Command, json_option, print_json, say
from postbacks.printable import printable

if TYPE_CHECKING:
    from postbacks.catalogue import Event
    from postbacks.ping.diagnose import Advice
    from postbacks.settings import Settings
    from postbacks.transport.probe import Probe
    from postbacks.transport.profile import Profile


class _Target(NamedTuple):
    """Target of a test postback: URL and profile, of an account or of a URL alone; and the time."""

    account: str | None
    url: str
    profile: Profile
    now_ms: int


class _Step(NamedTuple):
    """A step of the POST, as it is shown.

    Attributes:
        name: ``DNS``, ``TCP``, ``TLS``, ``request`` or ``answer``.
        reached: True if the POST came to its end.
        right: True if it was in order.
        took_s: seconds that it took.
        words: what came of it.
    """

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
    help="Send the event of this file instead of a SUB N301.",
)
@json_option
def ping(target: str, file: BinaryIO | None, as_json: bool) -> None:
    """Send a test postback, and say what the receiver gets wrong.

    It is a SUB N301 with the header Postback-Test: 1, sent at once from this machine: not through the queue, and not
    recorded in the ledger. It is sent like the account's postbacks: with its URL, limits, headers, TLS and signatures,
    and only to networks and ports that the workers send to. It waits up to 3 times longer than the limits, to tell by
    how much they are missed.

    A URL with a password can stand in a file (@FILE) or come from standard input (-).

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
        _print_request(to, event, body)
    from postbacks.cli.base import stderr_console

    with stderr_console().status("Waiting for the answer…"):
        probe = observe(to.url, body, to.profile, settings, to.now_ms)
    advice = diagnose(probe, settings)
    if as_json:
        print_json(_as_json(to, event, probe, advice))
    else:
        _print(probe, advice)
    if not probe.outcome.delivered:
        raise click.exceptions.Exit(1)


def _workers_settings() -> Settings:
    """Return the settings that the workers have published; this process's, where no broker or worker is running."""
    from postbacks.accounts.url_policy import worker_policies
    from postbacks.errors import BrokerError
    from postbacks.settings import load

    try:
        policies = worker_policies()
    except BrokerError:  # a URL can be pinged without a broker
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
    """Return the URL that was given, or the account's URL for this event with its profile.

    A URL alone needs no broker, so its time is of this machine's clock.
    """
    from postbacks.accounts import UNREADABLE, find_accounts, store
    from postbacks.accounts.routing import end_words, reason_words, route
    from postbacks.broker.client import client
    from postbacks.broker.clock import now_ms
    from postbacks.broker.errors import broker_errors
    from postbacks.errors import UnknownAccount
    from postbacks.names import check_name
    from postbacks.settings import load
    from postbacks.transport.profile import Profile
    from postbacks.urls import check_url

    if "/" in target:  # a URL: no account's name has a slash
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


def _print_request(to: _Target, event: Event, body: bytes) -> None:
    from postbacks.urls import redacted

    count = len(to.profile.signers)
    signed = {0: "not signed", 1: "signed"}.get(count, f"signed with {count} secrets")
    account = f"account {to.account}, " if to.account else ""
    click.echo(f"POST {click.style(printable(redacted(to.url)), bold=True)}")
    click.echo(
        f"     {account}{event.origin} {event.code}, {len(body)} bytes, {signed}, marked Postback-Test: 1\n"
    )
    say("A test: not through the queue, and not in the ledger.\n")


def _print(probe: Probe, advice: Advice) -> None:
    for step in _steps(probe):
        mark = click.style("ok", fg="green") if step.right else click.style("!!", fg="red", bold=True)
        click.echo(f"  {mark}  {step.name:8}{_length(step.took_s)}   {printable(step.words)}")
    limits = f"{probe.limits.connect_timeout_s:g} s to connect, {probe.limits.answer_timeout_s:g} s to answer"
    click.echo(f"      {'total':8}{_length(probe.total_s)}   allowed: {limits}\n")
    if probe.outcome.delivered:
        word = click.style("Delivered", fg="green", bold=True)
    else:
        word = click.style("Not delivered", fg="red", bold=True)
    click.echo(f"{word}: {printable(advice.verdict)}.")
    if advice.todo:
        click.echo(printable(advice.todo))
    excerpt = probe.raw_outcome.excerpt.strip()
    if excerpt:
        click.echo(f"Its answer begins: {printable(excerpt)}")
    for sentence in advice.noticed:
        click.echo(f"{click.style('Note', fg='yellow')}: {printable(sentence)}.")


def _length(length_s: float) -> str:
    return f"{length_s * 1000:8.1f} ms" if length_s < 1 else f"{length_s:8.2f} s "


def _steps(probe: Probe) -> list[_Step]:
    """Return the steps that the POST came to; where it failed, one of them is not right."""
    from postbacks.urls import endpoint_of

    moments = [
        ("DNS", probe.resolved_s, _name_words(probe)),
        ("TCP", probe.connected_s, f"connected to {probe.address}"),
        *(
            [("TLS", probe.secured_s, _tls_words(probe))]
            if endpoint_of(probe.url).startswith("https://")
            else []
        ),
        ("request", probe.sent_s if probe.connecting_s is not None else None, "sent"),
        ("answer", probe.header_s, _answer_words(probe)),
    ]
    steps: list[_Step] = []
    before_s = 0.0
    for name, at_s, words in moments:
        if at_s is None:
            took_s = max(0.0, probe.total_s - before_s)
            steps.append(_Step(name, False, False, took_s, _fault_words(name, probe)))
            return steps
        steps.append(_Step(name, True, True, max(0.0, at_s - before_s), words))
        before_s = at_s
    if not probe.outcome.delivered:
        # A connection that came too late, and not never: the slowest step is to blame.
        is_late = probe.outcome.name == "connect_timeout"
        at = (
            max(range(len(steps) - 2), key=lambda number: steps[number].took_s) if is_late else len(steps) - 1
        )
        steps[at] = steps[at]._replace(right=False)
    return steps


def _fault_words(name: str, probe: Probe) -> str:
    detail = probe.outcome.detail or probe.outcome.name
    if name == "TLS" and probe.certificate is not None:
        return f"{detail.partition(' (')[0]}: {_certificate_words(probe)}"
    return detail


def _name_words(probe: Probe) -> str:
    from postbacks.settings import load
    from postbacks.urls import read_url

    host = read_url(probe.url).host
    address = probe.address.rpartition(":")[0].strip("[]")
    if load().proxy_url:
        return "of the proxy, through which all goes"
    return host if address in {"", host} else f"{host} is {address}"


def _tls_words(probe: Probe) -> str:
    return ", ".join(filter(None, (probe.tls_version, _certificate_words(probe))))


def _certificate_words(probe: Probe) -> str:
    from postbacks.ping.diagnose import days_left

    certificate, days = probe.certificate, days_left(probe)
    if certificate is None or days is None:
        return ""
    names = ", ".join(certificate.names[:3]) or "no name"
    more = len(certificate.names) - 3
    left = f"{days} days left" if days >= 0 else f"ended on {certificate.ends:%Y-%m-%d}"
    return f"certificate for {names}{f' and {more} more' if more > 0 else ''} by {certificate.issuer}, {left}"


def _answer_words(probe: Probe) -> str:
    from http.client import responses as reasons

    from postbacks.ping.diagnose import location

    if probe.status is None:
        return ""
    target = location(probe)
    words = f"{probe.status} {reasons.get(probe.status, '')}".strip() + (f" to {target}" if target else "")
    return words + (f", HTTP/{probe.http}" if probe.http else "")


def _as_json(to: _Target, event: Event, probe: Probe, advice: Advice) -> dict[str, Any]:
    from postbacks.ping.diagnose import days_left, location
    from postbacks.urls import redacted

    certificate = probe.certificate
    tls = None
    if probe.secured_s is not None:
        tls = {
            "version": probe.tls_version or None,
            "names": list(certificate.names) if certificate else [],
            "issuer": certificate.issuer if certificate else None,
            "ends": certificate.ends.isoformat().replace("+00:00", "Z") if certificate else None,
            "days_left": days_left(probe),
        }
    steps = {
        f"{step.name.lower()}_ms": round(step.took_s * 1000, 1) for step in _steps(probe) if step.reached
    }
    return {
        "account": to.account,
        "url": redacted(to.url),
        "id": probe.postback_id,
        "origin": event.origin,
        "code": event.code,
        "delivered": probe.outcome.delivered,
        "outcome": probe.outcome.name,
        "status": probe.status,
        "detail": probe.outcome.detail,
        "verdict": advice.verdict,
        "advice": advice.todo,
        "notes": list(advice.noticed),
        "location": location(probe) or None,
        "signatures": len(to.profile.signers),
        "limits": {
            "connect_s": probe.limits.connect_timeout_s,
            "answer_s": probe.limits.answer_timeout_s,
        },
        "steps": steps | {"total_ms": round(probe.total_s * 1000, 1)},
        "address": probe.address or None,
        "tls": tls,
        "keeps_alive": None if probe.status is None else not probe.closes,
        "excerpt": probe.raw_outcome.excerpt,
    }
