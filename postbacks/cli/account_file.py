"""``postbacks account export`` and ``apply``: accounts as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from postbacks.cli import arguments
from postbacks.cli.base import Command, confirm, json_option, print_json, say, why_option
from postbacks.cli.pauses import account
from postbacks.printable import printable

if TYPE_CHECKING:
    from typing import BinaryIO

    from postbacks.operate.account_file import Plan, PlannedAccount

#: Names of accounts that one line has at most.
_NAMES_MAX = 20


@account.command(
    "export",
    cls=Command,
    examples=("postbacks account export accounts.yaml", "postbacks account export > accounts.yaml"),
)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
def export_(file: str) -> None:
    """Write all accounts as YAML, to FILE or standard output.

    No secret, password or value of a header is in it: {keep: true} stands in its place. A FILE that is there is
    written anew.
    """
    from postbacks.operate import account_file

    text = account_file.export()
    if file == "-":
        click.echo(text, nl=False)
        return
    Path(file).write_text(text, "utf-8")
    say(f"The accounts are written to {file}.")


@account.command(
    "apply",
    cls=Command,
    examples=(
        "postbacks account apply accounts.yaml --dry-run",
        "postbacks account apply accounts.yaml --why 'ticket 812'",
        "postbacks account export | postbacks account apply - --dry-run",
    ),
)
@click.argument("file", type=click.File("rb"), callback=arguments.file)
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@why_option
@json_option
def apply_(file: BinaryIO, *, dry_run: bool, yes: bool, why: str, as_json: bool) -> None:
    """Set accounts as a file of YAML has them.

    First the whole file is checked: each fault is shown with its line, and nothing is changed where there is any. Then
    each change is shown, and asked for. An account of the file becomes what it says there: a field that is left out goes
    back to its default. Accounts that the file does not have stay as they are.

    Secrets do not stand in the file: {env: NAME} and {file: PATH} are read by this command, {keep: true} leaves what is
    stored. Paths begin at the file's directory.

    Exit codes: 0 done; 1 a change failed; 2 the file has faults.
    """
    from postbacks.errors import BadInput
    from postbacks.operate import account_file

    name = getattr(file, "name", "-")
    is_path = isinstance(name, str) and name not in {"-", "<stdin>"}
    plan = account_file.plan(file.read(), Path(name).parent if is_path else Path())
    title = name if is_path else "standard input"
    for fault in plan.faults:
        if as_json:
            print_json({"fault": fault.words, "line": fault.line, "at": fault.at})
        else:
            say(f"{title}:{fault}")
    if plan.faults:
        count = f"{len(plan.faults):,} fault{'' if len(plan.faults) == 1 else 's'}"
        raise BadInput(f"{title} has {count}: nothing is changed.")
    _show(plan, as_json=as_json)
    for warning in plan.warnings:
        say(f"Warning: {warning}")
    say(_summary(plan))
    if dry_run or not plan.to_do:
        return
    if not yes:
        confirm(f"Set {_accounts(len(plan.to_do))}?")
    _apply(plan, why)


def _apply(plan: Plan, why: str) -> None:
    from postbacks.errors import PostbacksError
    from postbacks.operate import account_file

    done: list[str] = []
    try:
        for name in account_file.apply(plan, why=why):
            done.append(name)  # noqa: PERF402 - those before a failure are named
    except PostbacksError as error:
        failed = plan.to_do[len(done)].name
        rest = len(plan.to_do) - len(done)
        raise click.ClickException(
            f"Account {failed}: {error} {_accounts(len(done))} of {len(plan.to_do):,} {'is' if len(done) == 1 else 'are'} set "
            f"({_names(done)}); {rest:,} not. Apply the file again: what is set stays as it is."
        ) from None
    say(f"{_accounts(len(done))} {'is' if len(done) == 1 else 'are'} set.")


def _show(plan: Plan, *, as_json: bool) -> None:
    """Print what changes, field by field."""
    from postbacks.operate.journal_words import change_words

    for planned in plan.accounts:
        if as_json:
            print_json(_public(planned))
        elif planned.changed:
            click.echo(
                f"{click.style(printable(planned.name), bold=True)}{' (new)' if planned.is_new else ''}"
            )
            for field, (old, new) in planned.changed.items():
                click.echo(f"  {printable(change_words(field, old, new))}")


def _public(planned: PlannedAccount) -> dict[str, Any]:
    action = "new" if planned.is_new else "changed" if planned.changed else "unchanged"
    return {"account": planned.name, "action": action, "changed": planned.changed}


def _summary(plan: Plan) -> str:
    new = sum(account.is_new for account in plan.accounts)
    changed = len(plan.to_do) - new
    words = f"{new:,} new, {changed:,} changed, {len(plan.accounts) - len(plan.to_do):,} unchanged."
    if plan.left:
        words += f" {_accounts(len(plan.left))} not in the file {'stays' if len(plan.left) == 1 else 'stay'}: {_names(plan.left)}."
    return words


def _accounts(count: int) -> str:
    return f"{count:,} account{'' if count == 1 else 's'}"


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_MAX:,} more" if len(names) > _NAMES_MAX else ""
    return printable(", ".join(names[:_NAMES_MAX]) or "none") + more
