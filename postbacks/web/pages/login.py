"""Login and logout, and the answer for a container's probe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Route

from postbacks.logs import EventLog
from postbacks.operate.identity import MAX_USER
from postbacks.web.addresses import own_path
from postbacks.web.forms import read_form
from postbacks.web.reading import act
from postbacks.web.render import render
from postbacks.web.security import proxy
from postbacks.web.security.host import PROBE
from postbacks.web.security.roles import public

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.web.security.login import Login
    from postbacks.web.security.sessions import SessionStore

log = EventLog(__name__)

_LATER = "Too many wrong logins: wait {} s before the next one."
_WRONG = "That is no user with this password."
_WRONG_TOKEN = "That is not the token."  # noqa: S105 - a sentence


@public
async def login(request: Request) -> Response:
    """Ask who somebody is, and begin their session."""
    logins: Login = request.app.state.login
    config = request.app.state.config
    if not config.has_login or not (logins.takes_passwords or logins.takes_token):
        return RedirectResponse("/", 303)
    if request.method != "POST":
        following = own_path(request.query_params.get("next", "/"))
        return _form(request, logins, following)
    fields = await read_form(request)
    # A longer name is nobody's, and need not fill the log.
    name, secret = fields.get("name", "").strip()[: MAX_USER + 1], fields.get("secret", "")
    following = own_path(fields.get("next", "/"))
    address = proxy.address_of(request.scope, config.settings)
    wait_s = logins.slowing.attempt(name, address)
    if wait_s > 0:
        log.warning("web.login_slowed", user=name, address=address, wait_s=round(wait_s, 1))
        seconds = math.ceil(wait_s)
        return _form(
            request, logins, following, name, _LATER.format(seconds), 429, {"Retry-After": str(seconds)}
        )
    identity = await logins.check(name, secret)
    if identity is None:
        log.warning("web.login_refused", user=name, address=address)
        return _form(request, logins, following, name, _WRONG if name else _WRONG_TOKEN, 401)
    logins.slowing.succeed(name, address)
    log.info("web.login", user=identity.viewer.name, role=identity.viewer.role, address=address)
    store: SessionStore = request.app.state.sessions
    session = store.begin(identity, by_token=not name)
    response = RedirectResponse(following, 303)
    await act(request, store.set_cookie, MutableHeaders(raw=response.raw_headers), request.scope, session)
    return response


def _form(
    request: Request,
    logins: Login,
    following: str,
    name: str = "",
    sentence: str = "",
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    return render(
        request,
        "login.html",
        status=status,
        headers=headers,
        following=following,
        name=name,
        sentence=sentence,
        takes_passwords=logins.takes_passwords,
        takes_token=logins.takes_token,
    )


@public
async def logout(request: Request) -> Response:
    """End the session, for all web processes."""
    store: SessionStore = request.app.state.sessions
    session = request.state.session
    response = RedirectResponse("/login", 303)
    if session is not None:
        request.state.session = None
        store.drop_cookie(MutableHeaders(raw=response.raw_headers), request.scope)
        await act(request, store.end, session)
        log.info("web.logout", user=request.state.viewer.name)
    return response


@public
async def alive(_request: Request) -> Response:
    """Say that this process answers, and nothing else."""
    return PlainTextResponse("alive\n")


routes = [
    Route("/login", login, methods=["GET", "POST"]),
    Route("/logout", logout, methods=["POST"]),
    Route(PROBE, alive),
]
