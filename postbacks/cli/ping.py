"""``postbacks ping``: send a test postback, and say what the receiver's developers should mend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import click

from postbacks.cli import arguments
from postbacks.cli.base import Command, json_option, print_json, say
from postbacks.printable import printable

if TYPE_CHECKING:
    from postbacks.catalogue import Event
    from postbacks.ping.diagnose import Advice
    from postbacks.ping.target import Target
    from postbacks.transport.probe import Probe


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
    from postbacks.ping.target import find_target, workers_settings

    event = _event(file)
    to = find_target(target, event)
    body = render(event)
    settings = workers_settings()
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


def _event(file: BinaryIO | None) -> Event:
    from postbacks.cli.events import read_events
    from postbacks.ping.observe import test_event

    if file is None:
        return test_event()
    events = read_events(file)
    if len(events) > 1:
        raise click.UsageError(f"A ping is one postback; this file holds {len(events)} events.")
    return events[0]


# -- in words --------------------------------------------------------------------------------------


def _print_request(to: Target, event: Event, body: bytes) -> None:
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
    from postbacks.ping.steps import steps_of

    for step in steps_of(probe):
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


def _as_json(to: Target, event: Event, probe: Probe, advice: Advice) -> dict[str, Any]:
    from postbacks.ping.diagnose import days_left, location
    from postbacks.ping.steps import steps_of
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
        f"{step.name.lower()}_ms": round(step.took_s * 1000, 1) for step in steps_of(probe) if step.reached
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
