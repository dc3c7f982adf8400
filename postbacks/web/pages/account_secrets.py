"""Page of the signing secrets of an account: how many there are and until when, a new one, and none any more.

A new secret stands in the reply to the form alone: no address leads to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from postbacks.errors import InvalidAccount, PostbacksError
from postbacks.names import check_name
from postbacks.operate.accounts import remove_secrets, rotate_secret
from postbacks.operate.overlap import OVERLAP, read_overlap
from postbacks.web.actions import acted, done
from postbacks.web.forms import by_field, read_account_form
from postbacks.web.pages.account_change import read
from postbacks.web.reading import in_thread
from postbacks.web.render import render
from postbacks.web.security.roles import needs

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.accounts import Account


@needs("admin")
async def page(request: Request) -> Response:
    """Show which secrets sign, and the forms."""
    return _show(request, await in_thread(request, read, check_name(request.path_params["name"])))


@needs("admin")
async def rotate(request: Request) -> Response:
    """Give the account a new secret, and show it this once."""
    name, fields, viewer = await read_account_form(request)
    typed = fields.get("overlap", "").strip() or OVERLAP
    account = await in_thread(request, read, name)
    try:
        (account, secret), is_logged_only = await acted(
            request, rotate_secret, name, read_overlap(typed), why=fields.get("why", ""), by=viewer.name
        )
    except PostbacksError as error:
        return _show(
            request,
            account,
            by_field(error, {"overlap": typed}) if isinstance(error, InvalidAccount) else {"": str(error)},
            typed,
        )
    return render(
        request, "account_secret.html", account=account, secret=secret, is_logged_only=is_logged_only
    )


@needs("admin")
async def remove(request: Request) -> Response:
    """Take all secrets away, where the account's name was typed."""
    name, fields, viewer = await read_account_form(request)
    if fields.get("typed", "").strip() != name:
        mistake = {"typed": f"Type the name of the account, {name}, to go on."}
        return _show(request, await in_thread(request, read, name), mistake)
    return await done(
        request, f"/accounts/{name}", remove_secrets, name, why=fields.get("why", ""), by=viewer.name
    )


def _show(
    request: Request, account: Account, mistakes: dict[str, str] | None = None, overlap: str = OVERLAP
) -> Response:
    return render(
        request,
        "account_secrets.html",
        status=400 if mistakes else 200,
        account=account,
        overlap=overlap,
        mistakes=mistakes or {},
    )


routes = [
    Route("/accounts/{name}/secrets", page),
    Route("/accounts/{name}/secrets/rotate", rotate, methods=["POST"]),
    Route("/accounts/{name}/secrets/remove", remove, methods=["POST"]),
]
