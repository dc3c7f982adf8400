"""Resend without a history: of what the broker alone can find, at once and without a job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeadSelection:
    """Dead postbacks that the broker has found.

    Attributes:
        ids: of those that can be sent again, the first that died first.
        accounts: account -> how many of them.
        unknown: left, as their accounts are not known.
        by_reason: left, as only their reason selects them (``poison``, ``id_taken``).
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
        BrokerError: the broker cannot be used.
    """
    raise NotImplementedError


def resend_dead(selection: DeadSelection, *, by: str | None = None, why: str = "") -> int:
    """Send what was selected again; return how many wait now.

    Raises:
        BrokerError: the broker cannot be used.
    """
    raise NotImplementedError
