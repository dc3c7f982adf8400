"""Live parts of pages: a browser asks for the page's address again every 2 s, and gets the part alone, or 304.

A page has a template for the whole and one for its part, which the whole includes::

    return live(request, "now.html", "now_live.html", health=health)

    <div {{ live_part() }}>{% include "now_live.html" %}</div>

The address holds the whole state, filters included, so the part is what the page would show. ``static/live.js`` asks, and
stands still while the tab is hidden or something is selected. Times are shown to the minute, so the part of a system
in which nothing happens stays the same.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import HTMLResponse, Response

from postbacks.web import render

if TYPE_CHECKING:
    from starlette.requests import Request

#: Header with which ``static/live.js`` asks for the part; it renews no session.
HEADER: Final = "HX-Request"


def is_live(request: Request) -> bool:
    """Tell whether the part alone is asked for."""
    return request.method == "GET" and request.headers.get(HEADER) == "true"


def live(request: Request, template: str, part: str, **facts: Any) -> Response:
    """Render a page, or its part where that is asked for.

    Args:
        request: of the page.
        template: of the whole.
        part: template of what changes.
        facts: what both show.
    """
    if not is_live(request):
        pending = any(getattr(value, "is_pending", False) for value in facts.values())
        return render.render(request, template, pending=pending, **facts)
    text = render.text(request, part, **facts)
    etag = f'"{sha256(text.encode()).hexdigest()[:24]}"'
    # A proxy that compresses what it passes on makes it a weak one.
    if request.headers.get("If-None-Match", "").removeprefix("W/") == etag:
        return Response(status_code=304, headers={"ETag": etag})
    return HTMLResponse(text, headers={"ETag": etag})
