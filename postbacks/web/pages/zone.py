"""Page of the time zone in which times are shown; a cookie keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.responses import RedirectResponse
from starlette.routing import Route

from postbacks.web import zones
from postbacks.web.addresses import own_path
from postbacks.web.render import render
from postbacks.web.security.roles import needs

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_YEAR_S: Final = 365 * 86_400


@needs("viewer")
async def page(request: Request) -> Response:
    """List the zones, or set one."""
    return show(request)


def show(request: Request) -> Response:
    """List the zones, or set the one that is named and go back."""
    name = request.query_params.get("name", "")
    back = own_path(request.query_params.get("back", ""))
    if name not in zones.names():
        return render(request, "zone.html", names=zones.names(), back=back)
    response = RedirectResponse(back, 303)
    response.set_cookie(zones.COOKIE, name, max_age=_YEAR_S, httponly=True, samesite="strict")
    return response


routes = [Route("/zone", page)]
