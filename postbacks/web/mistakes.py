"""Errors as pages: a sentence, the status that fits it, and no traceback."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

from postbacks.errors import (
    AccountsUnavailable,
    BrokerError,
    HistoryError,
    InvalidQuery,
    UnknownAccount,
    UnknownIncident,
    UnknownJob,
    UnknownPostback,
)
from postbacks.logs import EventLog
from postbacks.web.addresses import is_customers, logged_path
from postbacks.web.layer import Layer
from postbacks.web.render import render

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Message, Receive, Scope, Send

log = EventLog(__name__)

_WORDS: Final = {
    404: "There is no such page.",
    405: "This address does not take that method.",
    500: "This should not happen; the log of the web process says more.",
}
#: Sentences for a customer, to whom ours would say too much.
CUSTOMERS_WORDS: Final = {
    404: "There is no such postback of yours.",
    500: "This should not happen; we have a note of it.",
    503: "This cannot be shown just now. Try again in a minute; a shorter time may help, such as since:1h.",
    400: "This cannot be done. Ask whoever gave you the link.",
}
_NOT_THERE: Final = (UnknownPostback, UnknownJob, UnknownAccount, UnknownIncident)
_NOT_NOW: Final = (BrokerError, HistoryError, AccountsUnavailable)


async def http_error(request: Request, error: Exception) -> Response:
    """Show what a handler, or the router, refused."""
    assert isinstance(error, HTTPException)
    default = HTTPStatus(error.status_code).phrase
    sentence = error.detail if error.detail != default else _WORDS.get(error.status_code, f"{default}.")
    return show(request, error.status_code, sentence, headers=dict(error.headers or {}))


async def our_error(request: Request, error: Exception) -> Response:
    """Show the sentence of an error of ours."""
    words = customers_words(error) if is_customers(request.url.path) else str(error)
    return show(request, status_of(error), words)


def customers_words(error: Exception) -> str:
    """Return the sentence of an error of ours as a customer reads it: of a filter it is the same."""
    return str(error) if isinstance(error, InvalidQuery) else CUSTOMERS_WORDS[status_of(error)]


def status_of(error: Exception) -> int:
    """Return the status that fits an error of ours: 404 not there, 503 not now, 400 wrongly asked for."""
    if isinstance(error, _NOT_THERE):
        return 404
    return 503 if isinstance(error, _NOT_NOW) else 400


def show(request: Request, status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """Render the page of an error."""
    return render(
        request,
        "error.html",
        status=status,
        headers=headers,
        title=HTTPStatus(status).phrase,
        sentence=sentence,
    )


class Mistakes(Layer):
    """Turns what nobody expected into a page and a line of the log, below the headers: Starlette's own page has none."""

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        has_begun = False

        async def send_noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except Exception as error:
            log.exception("web.failed", path=logged_path(scope["path"]), error=type(error).__name__)
            if has_begun:
                raise
            words = CUSTOMERS_WORDS if is_customers(scope["path"]) else _WORDS
            await show(Request(scope), 500, words[500])(scope, receive, send)
