"""``postbacks doctor``: says what is wrong with a live system, in plain words, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from postbacks.cli.base import Command, json_option, print_json, seconds
from postbacks.printable import printable

if TYPE_CHECKING:
    from postbacks.doctor import Repair, Report, Result

_COLOURS = {"wrong": "red", "note": "yellow", "fixed": "green"}
#: Findings of one check that are printed; ``--json`` has more.
FINDINGS_MAX = 5


@click.command(
    cls=Command,
    examples=("postbacks doctor", "postbacks doctor --fix", "postbacks doctor --json --ping"),
)
@click.option(
    "--fix", is_flag=True, help="Repair what can be repaired without guessing, and say what was done."
)
@click.option("--ping", is_flag=True, help="Ask the workers to answer as well; takes a second a look.")
@click.option(
    "--within",
    "within_s",
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    callback=seconds,
    help="How long it may take to look at all postbacks.",
)
@json_option
def doctor(fix: bool, ping: bool, within_s: float, as_json: bool) -> None:
    """Examine the live system, and say what is wrong and what to do.

    Looks at the broker, beat, workers, every lane and every postback, in pages that hold nobody up. What seems wrong
    is looked at a second time 2.5 s later, and only what is still wrong is said.

    Exit codes: 0 all is well (or was put right with --fix); 1 something is wrong; 2 the broker cannot be asked.
    """
    from postbacks.broker.client import client
    from postbacks.broker.url import redacted_broker_url
    from postbacks.doctor import Doctor
    from postbacks.queue.scripts import Scripts
    from postbacks.settings import load

    settings = load()
    doctor = Doctor(Scripts(client()), settings, within_s=within_s, ping=ping)
    report, repairs = doctor.fix() if fix else (doctor.examine(), [])
    if repairs:
        from postbacks.operate import journal

        for repair in repairs:
            details = {"did": repair.result.check.fix, "findings": len(repair.result.findings)}
            journal.write("doctor.fix", repair.result.check.name, details=details)
    if as_json:
        for repair in repairs:
            print_json(repair.to_public_dict())
        for result in report.results:
            print_json(result.to_public_dict())
    else:
        _print(report, repairs, redacted_broker_url(settings.broker_url), fix=fix)
    if report.wrong:
        raise click.exceptions.Exit(1)


def _print(report: Report, repairs: list[Repair], url: str, *, fix: bool) -> None:
    click.echo(f"looked at  {report.progress}")
    for label, fact in zip(("broker", "processes", "postbacks"), report.facts, strict=True):
        where = f"{url}: " if label == "broker" else ""
        click.echo(f"{label:11}{where}{printable(fact)}")
    click.echo()
    for repair in repairs:
        _print_result("fixed", repair.result, f"Repair: {repair.result.check.fix}.")
    if fix and not repairs:
        click.echo("Nothing had to be repaired, or could be without guessing.\n")
    results = [result for result in report.results if result.findings]
    for result in sorted(results, key=lambda result: result.level != "wrong"):
        _print_result(result.level, result, f"To do: {result.check.remedy}")
    wrong = len(report.wrong)
    notes = len(results) - wrong
    words = f"{wrong} wrong" if wrong else "nothing wrong"
    if notes:
        words += f", {notes} note{'' if notes == 1 else 's'}"
    click.echo(f"{len(report.results)} checks, {words}.")


def _print_result(level: str, result: Result, last_line: str) -> None:
    head = click.style(f"{level.upper():6}", fg=_COLOURS[level], bold=True)
    words = result.words
    count = f" ({len(words):,})" if len(words) > 1 else ""
    click.echo(f"{head} {click.style(result.check.name, bold=True)}{count}")
    lines = [f"{result.check.message}:", *(f"  {finding}" for finding in words[:FINDINGS_MAX])]
    if len(words) == 1:
        lines = [f"{result.check.message}: {words[0]}."]
    if len(words) > FINDINGS_MAX:
        lines.append(f"  and {len(words) - FINDINGS_MAX:,} more")
    for line in (*lines, last_line):
        indent = " " * (9 if line.startswith("  ") else 7)
        click.echo(
            click.wrap_text(
                printable(line.strip()), width=100, initial_indent=indent, subsequent_indent=indent
            )
        )
    click.echo()
