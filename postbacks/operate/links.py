"""Links of customers: each opens the dashboard's pages of one account to whoever has it, until its end or its withdrawal.

The broker keeps what is open, and the dashboard signs its address (``web/security/links.py``): a link whose record is gone
opens nothing, whatever its signature says.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from postbacks import keys
from postbacks.accounts import find_account
from postbacks.broker.client import client
from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import PostbacksError, UnknownAccount
from postbacks.ledger.record import iso
from postbacks.names import check_name
from postbacks.operate import journal
from postbacks.operate.identity import user_of
from postbacks.printable import quoted

if TYPE_CHECKING:
    import redis

DAY_MS: Final = 86_400_000
#: Days for which a link is open, unless somebody says otherwise, and at most.
DAYS: Final = 7
DAYS_MAX: Final = 90
#: Open links of an account: more are forgotten ones.
OPEN_MAX: Final = 20
_ID_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Link of a customer. Times are ms since the epoch on the broker's clock.

    Attributes:
        id: by which it is listed and withdrawn; it opens nothing.
        account: that it shows.
        by: who made it.
        made_ms: when.
        ends_ms: when it ends.
        may_resend: True where whoever has it may send again what was given up.
        used_ms: when a page was last opened by it, to the minute; None for never.
    """

    id: str
    account: str
    by: str
    made_ms: int
    ends_ms: int
    may_resend: bool
    used_ms: int | None = None

    @property
    def actor(self) -> str:
        """Name in the journal of whoever has it."""
        return f"link {self.id}"

    def to_public_dict(self) -> dict[str, Any]:
        """Return the link as ``postbacks web link --list --json`` prints it."""
        return {
            "id": self.id,
            "account": self.account,
            "by": self.by,
            "made": iso(self.made_ms),
            "ends": iso(self.ends_ms),
            "resend": self.may_resend,
            "used": iso(self.used_ms),
        }


def make_link(
    account: str, *, days: int = DAYS, may_resend: bool = False, by: str | None = None, why: str = ""
) -> Link:
    """Make a link, which is open at once.

    Args:
        account: that it shows.
        days: after which it ends.
        may_resend: True to let whoever has it send again what was given up.
        by: who makes it; None for the user of this process.
        why: the reason, for the journal.

    Raises:
        UnknownAccount: the store does not have the account.
        AccountsUnavailable: the store failed.
        PostbacksError: it would be open for too long, or the account has too many; says what to do.
        BrokerError: the broker cannot be used.
    """
    name, broker = check_name(account), client()
    if not 1 <= days <= DAYS_MAX:
        raise PostbacksError(f"A link is open for 1 to {DAYS_MAX} days, and not for {days}.")
    if find_account(name) is None:
        raise UnknownAccount(f"There is no account {name!r}; postbacks account list shows all.")
    if len(open_links(name)) >= OPEN_MAX:
        raise PostbacksError(
            f"Account {name} has {OPEN_MAX} open links already: withdraw one first (postbacks web link {name} --revoke ID)."
        )
    with broker_errors():
        made_ms = now_ms(broker)
        link = Link(
            id=secrets.token_hex(_ID_BYTES),
            account=name,
            by=user_of(by),
            made_ms=made_ms,
            ends_ms=made_ms + days * DAY_MS,
            may_resend=may_resend,
        )
        ended: Any = broker.zrangebyscore(keys.WEB_LINKS, "-inf", made_ms)
        pipe = broker.pipeline(transaction=True)
        if ended:
            pipe.zrem(keys.WEB_LINKS, *ended)
            pipe.zrem(keys.WEB_LINKS_USED, *ended)
        pipe.set(keys.WEB_LINK + link.id, _row(link), pxat=link.ends_ms)
        pipe.zadd(keys.WEB_LINKS, {link.id: link.ends_ms})
        pipe.zadd(keys.WEB_LINKS_USED, {link.id: 0})
        pipe.execute()
    details = {"account": name, "ends": iso(link.ends_ms), "resend": may_resend}
    journal.write("link.make", link.id, why=why, details=details, by=link.by, broker=broker)
    return link


def open_links(account: str = "") -> list[Link]:
    """Return the open links, of one account or of all; those that end first come first.

    Raises:
        BrokerError: the broker cannot be used.
    """
    broker = client()
    with broker_errors():
        ids: Any = broker.zrangebyscore(keys.WEB_LINKS, now_ms(broker), "+inf")
    return [link for link in _read(broker, [each.decode() for each in ids]) if account in {"", link.account}]


def find_link(link_id: str) -> Link | None:
    """Find an open link; None for one that has ended or was withdrawn.

    Raises:
        BrokerError: the broker cannot be used.
    """
    return next(iter(_read(client(), [link_id])), None)


def note_use(link: Link) -> None:
    """Note that a page is opened by a link.

    Raises:
        BrokerError: the broker cannot be used.
    """
    broker = client()
    with broker_errors():
        # Of one that was withdrawn meanwhile nothing comes back.
        broker.zadd(keys.WEB_LINKS_USED, {link.id: now_ms(broker)}, xx=True, gt=True)


def withdraw_links(account: str, link_id: str = "", *, by: str | None = None, why: str = "") -> list[Link]:
    """Withdraw an open link of an account, or all of them; all web processes know within seconds.

    Args:
        account: its name; the store need not have it any more.
        link_id: of the link; empty for all.
        by: who does it; None for the user of this process.
        why: the reason, for the journal.

    Returns:
        Those that were withdrawn.

    Raises:
        PostbacksError: the account has no such link.
        BrokerError: the broker cannot be used.
    """
    name, broker = check_name(account), client()
    links = [link for link in open_links(name) if link_id in {"", link.id}]
    if link_id and not links:
        raise PostbacksError(
            f"Account {name} has no open link {quoted(link_id)}; postbacks web link --list {name} shows those that it has."
        )
    for link in links:
        with broker_errors():
            pipe = broker.pipeline(transaction=True)
            pipe.delete(keys.WEB_LINK + link.id)
            pipe.zrem(keys.WEB_LINKS, link.id)
            pipe.zrem(keys.WEB_LINKS_USED, link.id)
            pipe.execute()
        journal.write("link.withdraw", link.id, why=why, details={"account": name}, by=by, broker=broker)
    return links


def _row(link: Link) -> str:
    return json.dumps(
        {
            "account": link.account,
            "by": link.by,
            "made_ms": link.made_ms,
            "ends_ms": link.ends_ms,
            "may_resend": link.may_resend,
        }
    )


def _read(broker: redis.Redis, ids: list[str]) -> list[Link]:
    if not ids:
        return []
    with broker_errors():
        pipe = broker.pipeline(transaction=False)
        for link_id in ids:
            pipe.get(keys.WEB_LINK + link_id)
        rows: list[Any] = pipe.execute()
        used: Any = broker.zmscore(keys.WEB_LINKS_USED, ids)
    links = []
    for link_id, row, used_ms in zip(ids, rows, used, strict=True):
        if row is not None:
            data = json.loads(row)
            known = {name: data[name] for name in ("account", "by", "made_ms", "ends_ms", "may_resend")}
            links.append(Link(id=link_id, used_ms=int(used_ms) if used_ms else None, **known))
    return links
