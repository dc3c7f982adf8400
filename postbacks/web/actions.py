"""Actions that a form asks for: done, said by whom, and then a page is shown again.

::

    return await done(request, f"/accounts/{name}", resume_account, name, why=why, by=viewer.name)

The page is another request (303), so that a reload does nothing twice. Where the journal could not be written, the address
says so, and ``logged_only`` of the template shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from starlette.responses import RedirectResponse

from postbacks.history.times import ahead, to_ms
from postbacks.operate import journal
from postbacks.web.asking import broker_ms
from postbacks.web.reading import act
from postbacks.web.zones import in_zone

if TYPE_CHECKING:
    from datetime import tzinfo

    from starlette.requests import Request
    from starlette.responses import Response

T = TypeVar("T")

#: Name in an address where an action is in the web process's log alone.
LOGGED_ONLY: Final = "logged_only"


async def done(
    request: Request, address: str, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Response:
    """Run an action, and lead back to a page.

    Args:
        request: of the form.
        address: of the page.
        function: does it.
        args: its arguments.
        kwargs: its named arguments.
    """
    _, is_logged_only = await acted(request, function, *args, **kwargs)
    return back(address, is_logged_only=is_logged_only)


async def acted(request: Request, function: Callable[..., T], *args: Any, **kwargs: Any) -> tuple[T, bool]:
    """Run an action; return what it returns, and True where the log alone has its entry of the journal."""

    def run() -> tuple[T, bool]:
        result = function(*args, **kwargs)
        return result, journal.only_logged.get()

    return await act(request, run)


def back(address: str, *, is_logged_only: bool) -> Response:
    """Lead to a page of this dashboard."""
    mark = f"{'&' if '?' in address else '?'}{LOGGED_ONLY}=1" if is_logged_only else ""
    return RedirectResponse(address + mark, 303)


def end_of(text: str, zone: tzinfo) -> int | None:
    """Resolve the end of a pause or a mute as it was typed, by the broker's clock; None where nothing was.

    Args:
        text: as it was typed.
        zone: of a time that names none.

    Raises:
        InvalidQuery: it cannot be read, or has passed; says what to type.
        BrokerError: the broker cannot be asked.
    """
    if not text.strip():
        return None

    return to_ms(ahead(in_zone(text, zone), broker_ms))
