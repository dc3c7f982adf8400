"""Resend without a history: of what the broker alone can find, at once and without a job."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from postbacks.accounts import find_accounts, store
from postbacks.broker.client import client
from postbacks.ledger import states
from postbacks.ledger.ledger import Ledger
from postbacks.operate import journal
from postbacks.operate.identity import current_user
from postbacks.queue import actions

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Begins of reasons whose postbacks are sent again only where the reason is named: they killed processes, or another
#: postback has their id.
BY_REASON: Final = ("poison", "id_taken")


@dataclass(frozen=True, slots=True)
class DeadSelection:
    """Dead postbacks that the broker has found.

    Attributes:
        ids: of those that can be sent again, opt-outs before all others, of each kind the first that died first.
        accounts: account -> how many of them.
        unknown: left, as their accounts are not known.
        by_reason: left, as only their reason selects them (``BY_REASON``).
        stubs: left, as their documents were not kept.
    """

    ids: tuple[str, ...]
    accounts: dict[str, int]
    unknown: int
    by_reason: int
    stubs: int


def select_dead(
    *, account: str | None = None, reason: str | None = None, since_s: float | None = None
) -> DeadSelection:
    """Find dead postbacks in the broker.

    Args:
        account: only this account's.
        reason: only those that died of it; without it none that killed processes, or whose id another postback has.
        since_s: only those that died within so many seconds.

    Raises:
        AccountsUnavailable: the account store failed.
        BrokerError: the broker cannot be used.
    """
    dead = Ledger(client()).dead(within_s=since_s, account=account, reason=reason)
    stubs = [postback for postback in dead if postback.is_stub]
    whole = [postback for postback in dead if not postback.is_stub]
    chosen = [postback for postback in whole if reason or not postback.reason.startswith(BY_REASON)]
    known = _known({postback.account for postback in chosen})
    known.add("")  # of a message that only a newer version could read
    sendable = [postback for postback in chosen if postback.own_url or postback.account in known]
    sendable.sort(key=lambda postback: not postback.is_opt_out)
    return DeadSelection(
        ids=tuple(postback.id for postback in sendable),
        accounts=dict(Counter(postback.account for postback in sendable)),
        unknown=len(chosen) - len(sendable),
        by_reason=len(whole) - len(chosen),
        stubs=len(stubs),
    )


def resend_dead(selection: DeadSelection, *, by: str | None = None, why: str = "") -> int:
    """Send what was selected again; return how many wait now, the others have nothing to send.

    Raises:
        BrokerError: the broker cannot be used.
    """
    who = by or current_user()
    sent = sum(actions.resend(postback_id, by=who) != states.DEAD for postback_id in selection.ids)
    if selection.ids:
        journal.write("resend", why=why, details={"postbacks": sent, "accounts": selection.accounts}, by=who)
    return sent


def _known(names: Iterable[str]) -> set[str]:
    """Return the names of those accounts that the store has."""
    return set(find_accounts(store(), sorted(filter(None, names))))
