"""Headers of every reply: nothing is loaded from elsewhere, framed, kept or guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.datastructures import MutableHeaders

from postbacks.web.addresses import is_customers
from postbacks.web.layer import Layer

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

#: ``connect-src`` is for the live parts; ``form-action`` and ``base-uri`` do not follow ``default-src``.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: Of customers' pages. Of what is sent from a page under it browsers hide the origin, ``Origin: null``, from us as well.
NO_REFERRER: Final = "no-referrer"
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Robots-Tag": "noindex, nofollow",
}


class Headers(Layer):
    """Outermost of all: sets the headers on whatever is answered, over what a page has set."""

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if is_customers(scope["path"]):
                    headers["Referrer-Policy"] = NO_REFERRER
            await send(message)

        await self._app(scope, receive, send_with_headers)
