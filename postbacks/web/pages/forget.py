"""Pages that forget a person: whom, what that reaches, the number or address typed once more, and the receipt.

A number or an address stands in no page and in no address: the pages have the pseudonym, and whoever forgets types it twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.routing import Route

from postbacks.broker.client import client
from postbacks.errors import InvalidQuery, PostbacksError
from postbacks.operate import forget as operate
from postbacks.operate.forget.request import ENDED, Requests
from postbacks.web.addresses import path_to
from postbacks.web.forms import Form, read_form
from postbacks.web.live import live
from postbacks.web.reading import act, in_thread
from postbacks.web.render import render
from postbacks.web.security.roles import needs, viewer_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.operate.forget import Count, Receipt

#: Says why nothing can be begun here.
NOBODY: Final = (
    "No process runs history here, so nobody would go on with it: start `postbacks history run`, or forget from a terminal with "
    "`postbacks forget`. Nothing was done."
)
#: Phases of a request, in words.
PHASES: Final = {
    "ledger": "the broker's records and messages are searched",
    "history": "the history's rows are erased",
    "check": "the broker is searched once more",
    "files": "the files are written anew",
    ENDED: "all is done",
}


class Found(NamedTuple):
    """Reach of a request, before it is made.

    Attributes:
        pseudonym: the person's.
        counts: of what names the person.
        goes_on: True where a process runs history, which does the work.
    """

    pseudonym: str
    counts: Count
    goes_on: bool


@needs("admin")
async def page(request: Request) -> Response:
    """Ask whom, and show the requests that are under way."""
    return await _ask(request)


async def _ask(request: Request, mistake: str = "") -> Response:
    return render(
        request,
        "forget.html",
        status=400 if mistake else 200,
        mistake=mistake,
        open=await in_thread(request, _open),
        phases=PHASES,
    )


def _open() -> list[Receipt]:
    requests = Requests(client())
    return [requests.read(request) for request in requests.open()]


class Asked(NamedTuple):
    """Person whom a form names; a field that is empty names nobody."""

    number: str | None
    email: str | None

    @classmethod
    def of(cls, fields: Form) -> Asked:
        """Read a form."""
        return cls(*(fields.get(kind, "").strip() or None for kind in cls._fields))


def _find(asked: Asked) -> Found:
    person = asked._asdict()
    return Found(operate.pseudonym(**person), operate.count(**person), operate.goes_on())


@needs("admin")
async def count(request: Request) -> Response:
    """Say what would be erased, and ask for the number or address once more."""
    fields = await read_form(request)
    asked = Asked.of(fields)
    try:
        found = await act(request, _find, asked)
    except InvalidQuery as error:
        return await _ask(request, str(error))
    return render(
        request,
        "forget_count.html",
        found=found,
        kind="number" if asked.number else "email",
        now=bool(fields.get("now")),
        why=fields.get("why", ""),
    )


@needs("admin")
async def start(request: Request) -> Response:
    """Ask that a person be forgotten, where what was typed is the person whose counts were shown."""
    fields, viewer = await read_form(request), viewer_of(request)
    try:
        name = await act(request, _begin, Asked.of(fields), fields, viewer.name)
    except InvalidQuery as error:
        return await _ask(request, str(error))
    return RedirectResponse(path_to("forget", name), 303)


def _begin(asked: Asked, fields: Form, by: str) -> str:
    """Begin a request; return its name.

    Raises:
        InvalidQuery: another person was typed than before, or none.
        PostbacksError: nobody would do the work.
    """
    if operate.pseudonym(**asked._asdict()) != fields.get("pseudonym", ""):
        raise InvalidQuery("That is another person than the one whose counts were shown: nothing was done.")
    if not operate.goes_on():
        raise PostbacksError(NOBODY)
    return operate.forget(
        number=asked.number, email=asked.email, now=bool(fields.get("now")), by=by, why=fields.get("why", "")
    )


@needs("admin")
async def receipt(request: Request) -> Response:
    """Show how far a request is, and at its end what it has reached."""
    try:
        found = await in_thread(request, lambda: Requests(client()).read(request.path_params["request"]))
    except PostbacksError as error:
        raise HTTPException(404, str(error)) from None
    return live(request, "forget_receipt.html", "forget_receipt_live.html", receipt=found, phases=PHASES)


routes = [
    Route("/forget", page),
    Route("/forget/count", count, methods=["POST"]),
    Route("/forget/start", start, methods=["POST"]),
    Route("/forget/{request}", receipt),
]
