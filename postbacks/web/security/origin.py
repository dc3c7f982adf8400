"""Origin of a request: what changes anything comes from a page of this dashboard, and only people follow links to it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse

from postbacks.web import mistakes
from postbacks.web.layer import Layer

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Origins(Layer):
    """Answers 403 to what another site's page has sent."""

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        headers = Headers(scope=scope)
        is_safe = scope["method"] in _SAFE
        if not (may_read(headers) if is_safe else is_same_origin(headers)):
            sentence = "This did not come from a page of this dashboard, so it was not done."
            await mistakes.show(Request(scope), 403, sentence)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def leading_on(address: str) -> Response:
    """Lead to an address from a page of our own.

    A browser that follows another site's link sends no ``SameSite=Strict`` cookie where that leads on; from our page it does.
    """
    again = escape(address, quote=True)
    return HTMLResponse(
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={again}">'
        f'<title>postbacks</title><a href="{again}">Go on</a>'
    )


def is_same_origin(headers: Headers) -> bool:
    """Tell whether a page of this host has sent a request; one that says nothing of where it is from is refused.

    Browsers set both headers and let no page set them. The scheme is not compared: a proxy may end TLS. A page whose
    ``Referrer-Policy`` is ``no-referrer`` sends ``Origin: null``, as a foreign frame without an origin does; only the other
    header, which comes over HTTPS and to loopback, tells them apart.
    """
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site is not None and site != "same-origin":
        return False
    if origin is not None and not (origin == "null" and site is not None):
        try:
            return urlsplit(origin).netloc.lower() == headers.get("Host", "").lower() != ""
        except ValueError:  # no browser has sent that
            return False
    return site is not None


def may_read(headers: Headers) -> bool:
    """Tell whether an address may be read: another site may lead people to it, and embed or fetch nothing."""
    is_foreign = headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}
    return not is_foreign or headers.get("Sec-Fetch-Mode") == "navigate"
