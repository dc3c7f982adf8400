"""Page *Story*: everything that happened to one message, in time order, and what has not come."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from starlette.responses import RedirectResponse
from starlette.routing import Route

from postbacks.operate import read_story
from postbacks.web.addresses import path_to
from postbacks.web.forms import read_form
from postbacks.web.reading import act, in_thread
from postbacks.web.render import lasting, render, url
from postbacks.web.security.roles import needs, viewer_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.history.timeline import Awaited, Story


class AwaitedWords(NamedTuple):
    """Event that has not come, in words."""

    is_missing: bool
    sentence: str


def awaited_of(awaited: Awaited) -> AwaitedWords:
    """Put into words what has not come."""
    codes = " or ".join(filter(None, (", ".join(awaited.codes[:-1]), awaited.codes[-1])))
    within = lasting(awaited.until_ms - awaited.since_ms)
    if awaited.is_missing:
        late = f"{lasting(awaited.for_ms)} after {awaited.after}; usual within {within}"
        return AwaitedWords(True, f"No {awaited.name} ({codes}) {late}.")
    return AwaitedWords(
        False, f"A {awaited.name} ({codes}) is awaited, usual within {within} after {awaited.after}."
    )


@needs("viewer")
async def ask(request: Request) -> Response:
    """Ask for whose story, or lead to it."""
    value = request.query_params.get("value", "").strip()
    if value:
        return RedirectResponse(
            url(path_to("story", value), account=request.query_params.get("account", "")), 303
        )
    return render(request, "story.html", value="", story=None, awaited={}, is_revealed=False, account="")


@needs("viewer")
async def page(request: Request) -> Response:
    """Tell a story, masked."""
    value, account = request.path_params["value"], request.query_params.get("account", "")
    story = await in_thread(request, read_story, value, account=account or None)
    return _show(request, value, account, story, is_revealed=False)


@needs("support")
async def reveal(request: Request) -> Response:
    """Tell a story unmasked, once, after the journal has the reason."""
    value, account = request.path_params["value"], request.query_params.get("account", "")
    fields = await read_form(request)
    story = await act(
        request,
        read_story,
        value,
        account=account or None,
        reveal=fields.get("why", ""),
        by=viewer_of(request).name,
    )
    return _show(request, value, account, story, is_revealed=True)


def _show(request: Request, value: str, account: str, story: Story, *, is_revealed: bool) -> Response:
    awaited = {
        number: [awaited_of(awaited) for awaited in message.awaited]
        for number, message in enumerate(story.messages)
    }
    return render(
        request,
        "story.html",
        value=value,
        story=story,
        awaited=awaited,
        is_revealed=is_revealed,
        account=account,
    )


routes = [
    Route("/story", ask),
    Route("/story/{value:path}", page),
    Route("/story/{value:path}", reveal, methods=["POST"]),
]
