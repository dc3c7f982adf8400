"""``postbacks drop``: let dead postbacks leave the ledger before their retention."""

from __future__ import annotations

import time
from collections import Counter
from typing import Final

import click

from postbacks.cli.base import Command, age, confirm, json_option, print_json, say, show_counts, why_option

#: Records that a call of the script drops at most.
_BATCH: Final = 500
#: Seconds between two calls, in which the broker serves others.
_PAUSE_S: Final = 0.01


@click.command(
    cls=Command,
    examples=(
        "postbacks drop --dead --account acme --older 7d --dry-run",
        "postbacks drop --dead --older 14d --yes",
    ),
)
@click.option("--dead", is_flag=True, help="Drop dead postbacks. Required: nothing else can be dropped.")
@click.option("--account", metavar="NAME", help="Only postbacks of this account.")
@click.option("--older", callback=age, metavar="AGE", help="Only those dead for longer: 90s, 30m, 2h or 7d.")
@click.option("--dry-run", is_flag=True, help="Count them and drop nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@why_option
@json_option
def drop(
    *,
    dead: bool,
    account: str | None,
    older: float | None,
    dry_run: bool,
    yes: bool,
    why: str,
    as_json: bool,
) -> None:
    """Drop dead postbacks for good.

    Their records and attempts are gone, and they cannot be sent again. First it shows how many each account has, and
    asks. Those that are sent again meanwhile stay. It works with a full broker, too, which has room afterwards.
    """
    from postbacks.broker.client import client
    from postbacks.broker.clock import now_ms
    from postbacks.broker.errors import broker_errors
    from postbacks.ledger.ledger import Ledger
    from postbacks.logs import EventLog, write_to_stderr
    from postbacks.operate import journal
    from postbacks.queue.scripts import Scripts
    from postbacks.settings import load

    if not dead:
        raise click.UsageError("Only dead postbacks can be dropped: say --dead.")
    with broker_errors():
        until_ms = now_ms(client()) - int((older or 0) * 1000)
    chosen = Ledger(client()).dead(until_ms=until_ms, account=account)
    if dry_run or not yes:
        show_counts(Counter(postback.account for postback in chosen), as_json=as_json)
    if dry_run:
        if as_json:
            print_json({"would_drop": len(chosen)})
        say(f"{len(chosen):,} dead postbacks would be dropped.")
        return
    if chosen and not yes:
        confirm(f"Drop {len(chosen):,} dead postbacks? They cannot be sent again.")
    scripts, dropped = Scripts(client()), 0
    try:
        for start in range(0, len(chosen), _BATCH):
            batch = chosen[start : start + _BATCH]
            dropped += scripts.drop(until_ms, account or "", [postback.id for postback in batch])
            time.sleep(_PAUSE_S)
    finally:  # logged as well where an error or Ctrl-C ends it half-way
        if dropped:
            write_to_stderr(load().log)
            log = EventLog(__name__)
            log.warning(
                "ledger.dropped",
                "dead postbacks were dropped by hand",
                account=account,
                older_s=older,
                postbacks=dropped,
            )
            details = {"account": account, "older_s": older, "postbacks": dropped}
            journal.write("drop", account or "", why=why, details=details)
    if as_json:
        print_json({"dropped": dropped})
    say(f"{dropped:,} dead postbacks are dropped." if chosen else "No such postback is dead.")
