"""Condition of opt-outs that are late: one for all accounts, so that a storm of failures brings no notice an account."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from postbacks.history.opt_outs import late
from postbacks.history.transactions import reading
from postbacks.ledger.record import iso
from postbacks.monitor import moments
from postbacks.operate.incidents import words
from postbacks.operate.incidents.conditions import Condition

if TYPE_CHECKING:
    from postbacks.operate.incidents.conditions import Look


def late_opt_outs(look: Look) -> Iterator[Condition]:
    """Yield that opt-outs are not delivered ``POSTBACKS_OPT_OUT_LATE_S`` after their acceptance, those of paused accounts too."""
    with reading(look.engine) as connection:
        opt_outs = late(connection, look.settings.opt_out_late_s)
    if opt_outs.oldest_ms is None:
        return
    accounts = tuple(opt_outs.by_account)
    about = "" if opt_outs.is_exact else "at least "
    dead = ""
    if opt_outs.dead:
        waits = "is dead and waits" if opt_outs.dead == 1 else "are dead and wait"
        dead = f"; {opt_outs.dead:,} of them {waits} for a resend"
    verb = "is" if opt_outs.postbacks == 1 else "are"
    yield Condition(
        kind="opt_outs",
        title="opt-outs are not delivered",
        sentence=(
            f"{about}{words.count(opt_outs.postbacks, 'opt-out')} of {words.names(accounts)} {verb} not delivered "
            f"{moments.duration(int(look.settings.opt_out_late_s * 1000))} after acceptance, the oldest since "
            f"{moments.minute(opt_outs.oldest_ms, look.now_ms)} "
            f"({moments.duration(look.now_ms - opt_outs.oldest_ms)}){dead}"
        ),
        advice=(
            "These people have taken back their consent, and the customer does not know it yet: tell it by another way. "
            "`postbacks list --opt-outs --undelivered` has them, with --csv as a proof of every attempt."
        ),
        size=opt_outs.postbacks,
        level=int(opt_outs.dead > 0),
        since_ms=opt_outs.oldest_ms,
        accounts=accounts[: words.NAMES_MAX],
        figures={
            "opt_outs": opt_outs.postbacks,
            "dead": opt_outs.dead,
            "accounts": len(accounts),
            "oldest": iso(opt_outs.oldest_ms),
        },
    )
