"""Customers' links on the page of an account: made, shown once, and withdrawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.routing import Route

from postbacks.names import check_name
from postbacks.operate import make_link, withdraw_links
from postbacks.web.actions import acted, done
from postbacks.web.forms import read_form
from postbacks.web.reading import in_thread, reading_of
from postbacks.web.render import render
from postbacks.web.security.cookies import is_secure
from postbacks.web.security.links import links_of
from postbacks.web.security.roles import needs, viewer_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


@needs("admin")
async def make(request: Request) -> Response:
    """Make a link, and show it: no address leads to it again."""
    name, fields = check_name(request.path_params["name"]), await read_form(request)
    days = fields.get("days", "").strip()
    if not (days.isascii() and days.isdigit() and len(days) < 4):
        raise HTTPException(400, "The days of a link are a whole number, such as 7.")
    scheme = "https" if is_secure(request.scope) else "http"
    base = reading_of(request).settings.web_url or f"{scheme}://{request.headers['Host']}"
    link, is_logged_only = await acted(
        request, make_link, name, days=int(days), may_resend=fields.get("resend") == "1", by=viewer_of(request).name,
        why=fields.get("why", ""),
    )  # fmt: skip
    address = await in_thread(request, links_of(request).address, link, base)
    return render(request, "link.html", made=link, address=address, is_logged_only=is_logged_only)


@needs("admin")
async def withdraw(request: Request) -> Response:
    """Withdraw a link, or all of an account."""
    name, fields = check_name(request.path_params["name"]), await read_form(request)
    return await done(
        request, f"/accounts/{name}", withdraw_links, name, fields.get("id", ""), by=viewer_of(request).name,
        why=fields.get("why", ""),
    )  # fmt: skip


routes = [
    Route("/accounts/{name}/links", make, methods=["POST"]),
    Route("/accounts/{name}/links/withdraw", withdraw, methods=["POST"]),
]
