"""Page *Selection*: what is selected of the list is sent again or cancelled, as a job, after what it will do is said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.routing import Route

from postbacks import history
from postbacks.broker.client import client
from postbacks.errors import InvalidQuery
from postbacks.history.query import Query
from postbacks.history.status import doubt
from postbacks.history.words import why
from postbacks.operate import preview_job
from postbacks.operate.account_health import OFF, WELL, named_accounts
from postbacks.operate.jobs.job import CANCEL, KINDS, MAY_NAME, MOVED_FROM, RESEND, TYPED_ABOVE
from postbacks.operate.jobs.requests import start
from postbacks.web.asking import clock_ms, read_bar
from postbacks.web.forms import read_form
from postbacks.web.reading import act, in_thread
from postbacks.web.render import counted, render
from postbacks.web.security.roles import SUPPORT_RESENDS_MAX, check_role, needs, viewer_of
from postbacks.web.zones import zone_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import tzinfo

    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.operate import Preview
    from postbacks.operate.account_health import AccountRow
    from postbacks.web.forms import Form
    from postbacks.web.security.roles import Viewer

#: Accounts of a selection that are shown.
ACCOUNTS_SHOWN: Final = 20
#: Role that a job of a kind needs.
ROLES: Final = {RESEND: "support", CANCEL: "operator"}


@dataclass(frozen=True, slots=True)
class Selection:
    """Postbacks that were selected for a job.

    Attributes:
        kind: of the job.
        q: filter bar that chooses them, its times resolved; that of the list where they were selected one by one.
        query: of the bar; beside ids its state alone, where such a job may name that.
        ids: those that were selected one by one; empty for all that the bar finds.
    """

    kind: str
    q: str
    query: Query | None
    ids: tuple[str, ...]


def read_selection(fields: Form, zone: tzinfo) -> Selection:
    """Read a selection from its form.

    Raises:
        HTTPException: there is no such kind.
        InvalidQuery: nothing is selected, or the bar cannot be.
    """
    kind = fields.get("kind", "")
    if kind not in KINDS:
        raise HTTPException(400, f"A job is one of {', '.join(KINDS)}.")
    bar = read_bar(fields.get("q", ""), zone)
    if fields.get("all"):
        fixed = bar.fixed(clock_ms())
        return Selection(kind, fixed, read_bar(fixed, zone).query, ())
    ids = tuple(dict.fromkeys(fields.getlist("id")))
    if not ids:
        raise InvalidQuery("Nothing is selected: check postbacks, or all that match.")
    state = bar.query.state if bar.query.state in MAY_NAME[kind] else None
    return Selection(kind, bar.text, Query(state=state) if state else None, ids)


def most_of(viewer: Viewer) -> int | None:
    """Return the postbacks that a job of this viewer may have; None for any number."""
    return None if viewer.may("operator") else SUPPORT_RESENDS_MAX


def look(selection: Selection) -> tuple[Preview, str, dict[str, AccountRow]]:
    """Say what a job would do, why the history may not know all, and which of its accounts are not well."""
    shown = preview_job(selection.kind, selection.query, ids=selection.ids)
    names = [name for name in shown.accounts if name][:ACCOUNTS_SHOWN] if selection.kind == RESEND else []
    unwell = {row.name: row for row in named_accounts(names) if row.state not in {WELL, OFF}}
    return shown, doubt(client()), unwell


@needs("support")
async def preview(request: Request) -> Response:
    """Say what a job would do, and ask."""
    viewer = viewer_of(request)
    fields = await read_form(request)
    selection = await in_thread(request, read_selection, fields, zone_of(request))
    check_role(viewer, ROLES[selection.kind], selection.kind)
    return await _ask(request, selection, viewer, why_typed=fields.get("why", ""))


async def _ask(
    request: Request, selection: Selection, viewer: Viewer, mistake: str = "", why_typed: str = ""
) -> Response:
    shown, doubted, unwell = await act(request, look, selection)
    most = most_of(viewer)
    return render(
        request, "selection.html", status=400 if mistake else 200, selection=selection, preview=shown, doubt=doubted, unwell=unwell,
        accounts_shown=ACCOUNTS_SHOWN, rows=[(postback, why(postback)) for postback in shown.sample], states=MOVED_FROM[selection.kind],
        is_typed=shown.total > TYPED_ABOVE, most=most, is_too_many=most is not None and shown.total > most, mistake=mistake,
        why=why_typed, may_rate=viewer.may("operator"),
    )  # fmt: skip


@needs("support")
async def begin(request: Request) -> Response:
    """Start the job."""
    viewer = viewer_of(request)
    fields = await read_form(request)
    selection = await in_thread(request, read_selection, fields, zone_of(request))
    check_role(viewer, ROLES[selection.kind], selection.kind)
    rate, total = _number(fields.get("rate", ""), "A rate"), _number(fields.get("total", ""), "The number")
    if total is not None and total > TYPED_ABOVE:
        typed = fields.get("typed", "").strip().replace(",", "")
        if typed != f"{total:.0f}":
            mistake = f"Type the number, {total:,.0f}, to go on."
            return await _ask(request, selection, viewer, mistake, fields.get("why", ""))
    most = most_of(viewer)
    if most is not None:
        # A filter may find more by the time its job begins: what few may do is done by ids.
        selection = await in_thread(request, _bounded, selection, most)
    job = await act(
        request, start, selection.kind, selection.query, ids=selection.ids, rate=rate, by=viewer.name,
        why=fields.get("why", ""),
    )  # fmt: skip
    return RedirectResponse(f"/jobs/{job.id}", 303)


def _bounded(selection: Selection, most: int) -> Selection:
    """Return a selection as ids, at most so many.

    Raises:
        HTTPException: they are more (403).
        InvalidQuery: there is none.
    """
    ids, query = selection.ids, selection.query
    if not ids and query is not None:
        wanted = MOVED_FROM[selection.kind] if query.state is None else (query.state,)
        ids = tuple(dict.fromkeys(ids_of(query, wanted, most)))
    if not ids:
        raise InvalidQuery("Nothing of it can be sent again any more.")
    if len(ids) > most:
        raise HTTPException(
            403,
            f"The role support may send up to {counted(most, 'postback')} again at a time, and these are more: select fewer, "
            "or ask an operator.",
        )
    state = query.state if query else None
    return replace(selection, ids=ids, query=Query(state=state) if state else None)


def ids_of(query: Query, wanted: Iterable[str], most: int) -> list[str]:
    """Find the ids of postbacks in these states; of a state at most one more than so many."""
    return [
        postback.id
        for state in wanted
        for postback in history.search(replace(query, state=state, limit=most + 1)).postbacks
    ]


def _number(typed: str, noun: str) -> float | None:
    """Read a number of a form; None where none was typed.

    Raises:
        HTTPException: it is none (400).
    """
    if not typed.strip():
        return None
    try:
        return float(typed.strip().replace(",", ""))
    except ValueError:
        raise HTTPException(400, f"{noun} is written in digits, such as 50.") from None


routes = [
    Route("/selection", preview, methods=["POST"]),
    Route("/selection/start", begin, methods=["POST"]),
]
