"""Page that makes an account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from postbacks.accounts import redis_accounts
from postbacks.accounts.edit import AccountChange
from postbacks.catalogue import ORIGINS
from postbacks.errors import BadSetting, InvalidAccount
from postbacks.operate import set_account
from postbacks.web.actions import acted, back
from postbacks.web.addresses import path_to
from postbacks.web.forms import Form, by_field, read_form
from postbacks.web.pages.account_change import URLS, off_of, urls_of
from postbacks.web.reading import in_thread
from postbacks.web.render import render
from postbacks.web.security.roles import needs, viewer_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


@needs("admin")
async def page(request: Request) -> Response:
    """Ask for a name and for where its postbacks go."""
    await in_thread(request, redis_accounts)  # an application's own store is refused before anything is typed
    return _show(request)


@needs("admin")
async def make(request: Request) -> Response:
    """Make an account; where it cannot be, ask again with the reason beside its field."""
    fields, viewer = await read_form(request), viewer_of(request)
    name = fields.get("name", "").strip()
    try:
        saved, is_logged_only = await acted(
            request, set_account, AccountChange(name, **urls_of(fields), off=off_of(fields)),
            is_new=True, why=fields.get("why", ""), by=viewer.name,
        )  # fmt: skip
    except (InvalidAccount, BadSetting) as error:
        return _show(
            request, fields, by_field(error, {field: fields.get(field, "") for field in ("name", *URLS)})
        )
    if saved.warnings:
        return _show(request, made=saved.after.name, warnings=saved.warnings)
    return back(path_to("accounts", name), is_logged_only=is_logged_only)


def _show(
    request: Request,
    fields: Form | None = None,
    mistakes: dict[str, str] | None = None,
    *,
    made: str = "",
    warnings: list[str] | None = None,
) -> Response:
    return render(
        request,
        "account_new.html",
        status=400 if mistakes else 200,
        fields=fields or {},
        mistakes=mistakes or {},
        urls=URLS,
        origins=ORIGINS,
        off=off_of(fields) if fields else frozenset(),
        made=made,
        warnings=warnings or [],
    )


routes = [
    Route("/new-account", page),
    Route("/new-account", make, methods=["POST"]),
]
