"""Customers' links: a signed address that opens the pages of one account, and the visit that it begins.

The address has the link's id and its end; all else the broker keeps (``operate/links.py``), and is asked for it again within
``FRESH_S``, so that a withdrawal is in force everywhere. ``/c/TOKEN`` sets a cookie and leads on, so the token stays in no
address. The cookie is sent to the customers' pages alone, and opens nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Final, NamedTuple

from itsdangerous import BadData, SignatureExpired
from starlette.exceptions import HTTPException
from starlette.requests import Request

from postbacks.accounts import find_account
from postbacks.errors import BrokerError
from postbacks.operate.links import find_link, note_use
from postbacks.web.addresses import CUSTOMERS, LINK
from postbacks.web.reading import in_thread, shared
from postbacks.web.security.cookies import Cookie
from postbacks.web.security.slowing import Slowing
from postbacks.web.zones import written, zone_of

if TYPE_CHECKING:
    from starlette.datastructures import MutableHeaders
    from starlette.responses import Response
    from starlette.types import Scope

    from postbacks.operate.links import Link
    from postbacks.settings import Settings
    from postbacks.web.security.key import Signers
    from postbacks.web.security.roles import Handler

#: Seconds for which a link counts as open that was: a withdrawal is in force everywhere by then.
FRESH_S: Final = 2.0
#: ms within which a page that is opened is not noted again.
_USED_MS: Final = 60_000
#: Cookie of a visit.
_COOKIE: Final = Cookie("__Secure-postbacks-customer", "postbacks-customer", CUSTOMERS)

_ASK: Final = "Ask whoever gave you the link for a new one."
#: Sentences for whoever has no open link; nothing else is shown to them.
NO_LINK: Final = (
    f"This address is no link of ours. Was it cut off when it was copied? Open the whole of it, or: {_ASK}"
)
NO_VISIT: Final = "Open the link that you were given: these pages are shown to whoever comes by it."
VISIT_OVER: Final = "Your visit has ended: open the link that you were given again."
WITHDRAWN: Final = f"This link was withdrawn, or its account is gone. {_ASK}"
LOOK_ALONE: Final = "With this link you can look, and send nothing again. Ask whoever gave it to you to send it again, or for a link that may."  # fmt: skip


class Ticket(NamedTuple):
    """Signed part of a link: its id, and its end in seconds since the epoch."""

    link_id: str
    ends_s: int


class Links:
    """Links as one web process, or the command line, signs and reads them.

    Args:
        settings: with the time after which a visit ends.
        signers: of the process.

    Attributes:
        slowing: of addresses that no link has.
    """

    def __init__(self, settings: Settings, signers: Signers) -> None:
        self._settings = settings
        self._signers = signers
        self.slowing = Slowing()

    def address(self, link: Link, base: str) -> str:
        """Return the address of a link below that of the dashboard: whoever has it, has the link.

        Raises:
            BrokerError: the key is the broker's, which cannot be used.
        """
        token = self._signers.signer("link").dumps([link.id, link.ends_ms // 1000])
        assert isinstance(token, str)
        return f"{base}{LINK}{token}"

    def read(self, token: str) -> Ticket | None:
        """Read the token of an address; None where nobody of us has signed it.

        Raises:
            BrokerError: the key is the broker's, which cannot be used.
        """
        with suppress(BadData, ValueError, TypeError):
            link_id, ends_s = self._signers.signer("link").loads(token)
            return Ticket(str(link_id), int(ends_s))
        return None

    def set_cookie(self, response_headers: MutableHeaders, scope: Scope, ticket: Ticket) -> None:
        """Begin a visit: set its cookie on a reply."""
        value = self._signers.signer("customer").dumps(list(ticket))
        assert isinstance(value, str)
        response_headers.append("Set-Cookie", _COOKIE.header(scope, value))

    def visit(self, scope: Scope) -> Ticket:
        """Read the cookie of a request.

        Raises:
            HTTPException: there is none, or the visit is over (403).
            BrokerError: the key is the broker's, which cannot be used.
        """
        value = _COOKIE.read(scope)
        if not value:
            raise HTTPException(403, NO_VISIT)
        try:
            link_id, ends_s = self._signers.signer("customer").loads(
                value, max_age=int(self._settings.web_session_s)
            )
            return Ticket(str(link_id), int(ends_s))
        except SignatureExpired:
            raise HTTPException(403, VISIT_OVER) from None
        except (BadData, ValueError, TypeError):
            raise HTTPException(403, NO_VISIT) from None


def links_of(request: Request) -> Links:
    """Return the links of the request's process."""
    links: Links = request.app.state.links
    return links


def link_of(request: Request) -> Link:
    """Return the link by which a page of a customer was opened."""
    link: Link = request.state.link
    return link


async def open_link(request: Request, ticket: Ticket) -> Link:
    """Find the open link of a ticket.

    Raises:
        HTTPException: it has ended, or was withdrawn (410).
        BrokerError, AccountsUnavailable: that cannot be found out.
    """
    if ticket.ends_s <= time.time():
        ended = written(ticket.ends_s * 1000, zone_of(request), "%Y-%m-%d %H:%M %Z")
        raise HTTPException(410, f"This link ended on {ended}. {_ASK}")
    link = await shared(request, ("link", ticket.link_id), FRESH_S, _find, ticket.link_id)
    if link is None:
        raise HTTPException(410, WITHDRAWN)
    return link


def _find(link_id: str) -> Link | None:
    """Find a link whose account is there, and note that it is used."""
    link = find_link(link_id)
    if link is None or find_account(link.account) is None:
        return None
    if time.time() * 1000 - (link.used_ms or 0) >= _USED_MS:
        with suppress(BrokerError):  # a full broker: whoever looks is not kept from it
            note_use(link)
    return link


def for_customers(*, may_resend: bool = False) -> Callable[[Handler], Handler]:
    """Let a handler be called by whoever has come by an open link, and by nobody else, whatever their role.

    Args:
        may_resend: True where the link must allow that.
    """

    def decorate(handler: Handler) -> Handler:
        @wraps(handler)
        async def checked(request: Request) -> Response:
            ticket = await in_thread(request, links_of(request).visit, request.scope)
            link = await open_link(request, ticket)
            request.state.link = link
            if may_resend and not link.may_resend:
                raise HTTPException(403, LOOK_ALONE)
            return await handler(request)

        setattr(checked, "for_customers", True)  # noqa: B010 - functions declare no attributes; a test reads it
        return checked

    return decorate
