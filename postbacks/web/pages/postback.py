"""Page *Postback*: its life, each attempt, its document and its story, and what can be done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.routing import Route

from postbacks.accounts import known_account
from postbacks.errors import HistoryError, PostbacksError, UnknownPostback
from postbacks.ledger import states
from postbacks.ledger.reasons import forgotten_words, reason_of
from postbacks.operate import look_up, read_story, resend_one
from postbacks.operate.cancel import cancel as cancel_one
from postbacks.operate.curl import curl_command
from postbacks.operate.resend import RESENT_FROM
from postbacks.transport.outcomes import OUTCOMES
from postbacks.urls import redacted
from postbacks.web.addresses import path_to
from postbacks.web.asking import clock_ms
from postbacks.web.documents import highlighted
from postbacks.web.forms import read_form
from postbacks.web.lifeline import diagram, posts_of, steps_of
from postbacks.web.live import live
from postbacks.web.pages.story import awaited_of
from postbacks.web.reading import act, in_thread, reading_of
from postbacks.web.render import render, url
from postbacks.web.security.roles import check_role, needs, viewer_of
from postbacks.web.zones import written, zone_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.history.timeline import Story
    from postbacks.ledger.record import Record
    from postbacks.operate import Found
    from postbacks.settings import Settings

#: What can be done -> the role that it needs.
ROLES: Final = {"resend": "support", "reveal": "support", "curl": "support", "cancel": "operator"}
#: States that a cancel is for.
CANCELLED_FROM: Final = frozenset({states.WAITING, states.HELD, states.SENDING, states.PARKED})
#: State after a cancel -> the sentence that says so.
CANCEL_WORDS: Final = {
    states.CANCELLED: "It is cancelled.",
    states.HELD: "It is held by a worker, which does not send it any more.",
    "remembered": "The ledger does not have it yet; it is not sent should it come.",
    states.SENDING: "It is being sent at this moment; should that fail, it is not sent again.",
}
#: State that has not ended -> what that means.
STATE_WORDS: Final = {
    states.WAITING: "it waits for its turn",
    states.HELD: "a worker has it, and no POST of it is open",
    states.SENDING: "a POST of it is open",
    states.PARKED: "it waits for the time of its next POST",
}
#: What was done -> its sentence, for the page that is shown afterwards.
DONE: Final = {"resent": "It was put back, to be sent again."} | {
    f"cancel-{state}": words for state, words in CANCEL_WORDS.items()
}


class View(NamedTuple):
    """Facts of the page.

    Attributes:
        found: the postback, masked or revealed.
        story: of its message, masked; None where it cannot be told.
        no_story: why not, a sentence.
        now_ms: the broker's time.
    """

    found: Found
    story: Story | None
    no_story: str
    now_ms: int


def read(postback_id: str, settings: Settings, reveal: str | None = None, by: str | None = None) -> View:
    """Read the facts.

    Raises:
        UnknownPostback: nobody has it; says what is known.
        RevealRefused, BrokerError: as ``look_up``.
    """
    found = look_up(postback_id, settings, reveal=reveal, by=by)
    if found.record is None:
        raise UnknownPostback(found.unknown)
    story, no_story = None, ""
    try:
        story = read_story(postback_id)
    except UnknownPostback:
        no_story = "The history does not have it yet: its story comes a few seconds after it."
    except HistoryError as error:
        no_story = f"Its story cannot be told: {error}"
    return View(found, story, no_story, clock_ms())


def _facts(request: Request, view: View, *, is_revealed: bool, curl: str = "") -> dict[str, Any]:
    record, zone = view.found.record, zone_of(request)
    assert record is not None
    steps = steps_of(record)
    reason = reason_of(record, reveal=is_revealed) if record.state != states.DELIVERED else ""
    copy, claim = view.found.copy, view.found.explanation.claim if view.found.explanation else None
    posts = posts_of(record)
    answered = posts[-1].attempt if record.state == states.DELIVERED and posts else None
    sentence = STATE_WORDS.get(record.state, "") or (reason if record.state in states.FINAL_STATES else "")
    if answered is not None:
        sentence = f"POST {answered.number} was answered {answered.status}"
    no_document = forgotten_words(record) or (copy.no_document if copy else "" if record.xml else reason)
    return {
        "found": view.found,
        "record": record,
        "sentence": sentence,
        "answered_ms": answered.at_ms + answered.elapsed_ms if answered else None,
        "target": redacted(record.url) if record.url else "",
        "causes": view.found.explanation.causes if view.found.explanation else (),
        "claim": claim,
        "chart": diagram(steps, view.now_ms, lambda ms: written(ms, zone, "%H:%M:%S")),
        "posts": posts,
        "outcomes": OUTCOMES,
        "pruned": max(0, copy.begun - len(record.attempts)) if copy and not copy.is_open else 0,
        "document": highlighted(record.xml) if record.xml else "",
        "no_document": no_document,
        "story": view.story,
        "no_story": view.no_story,
        "awaited": [awaited_of(awaited) for message in view.story.messages for awaited in message.awaited]
        if view.story
        else [],
        "is_revealed": is_revealed,
        "is_final": record.state in states.FINAL_STATES,
        "curl": curl,
        "may_resend": record.state in RESENT_FROM and not no_document,
        "may_cancel": record.state in CANCELLED_FROM,
        "done": DONE.get(request.query_params.get("done", ""), ""),
    }


@needs("viewer")
async def page(request: Request) -> Response:
    """Show a postback, masked."""
    postback_id = request.path_params["postback_id"]
    view = await in_thread(request, read, postback_id, reading_of(request).settings)
    return live(request, "postback.html", "postback_live.html", **_facts(request, view, is_revealed=False))


@needs("support")
async def do(request: Request) -> Response:
    """Do what a form of the page asks for."""
    viewer, postback_id = viewer_of(request), request.path_params["postback_id"]
    fields = await read_form(request)
    what, why = fields.get("do", ""), fields.get("why", "")
    if what not in ROLES:
        raise HTTPException(400, f"With a postback can be done: {', '.join(ROLES)}.")
    check_role(viewer, ROLES[what], what)
    if what == "resend":
        await act(request, resend_one, postback_id, by=viewer.name, why=why)
        return _after(postback_id, "resent")
    if what == "cancel":
        state = await act(request, cancel_one, postback_id, by=viewer.name, why=why)
        if state not in CANCEL_WORDS:
            raise PostbacksError(f"Postback {postback_id} is {state} already: there is nothing to cancel.")
        return _after(postback_id, f"cancel-{state}")
    settings = reading_of(request).settings
    view = await act(request, read, postback_id, settings, reveal=why, by=viewer.name)
    command = await act(request, _curl, view.found, settings) if what == "curl" else ""
    # Never by an address: whoever has the link, or the browser's history, has no reason.
    return render(request, "postback.html", **_facts(request, view, is_revealed=True, curl=command))


def _curl(found: Found, settings: Settings) -> str:
    record: Record | None = found.record
    assert record is not None
    if not record.xml:
        raise PostbacksError(f"Postback {record.id} has no document to send.")
    return curl_command(record, known_account(record.account), settings)


def _after(postback_id: str, done: str) -> Response:
    return RedirectResponse(url(path_to("postbacks", postback_id), done=done), 303)


routes = [
    Route("/postbacks/{postback_id:path}", page),
    Route("/postbacks/{postback_id:path}", do, methods=["POST"]),
]
