"""Dashboard as an ASGI application.

A request goes through, from outside: headers of the reply, unexpected errors, host, origin, session; then the page.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from postbacks.errors import PostbacksError
from postbacks.web import mistakes
from postbacks.web.pages import all_routes
from postbacks.web.reading import Reading
from postbacks.web.security.headers import Headers
from postbacks.web.security.host import Hosts
from postbacks.web.security.key import Signers
from postbacks.web.security.links import Links
from postbacks.web.security.login import Login
from postbacks.web.security.origin import Origins
from postbacks.web.security.sessions import Sessions, SessionStore

if TYPE_CHECKING:
    from postbacks.web.config import Config

#: Says what everybody who looks should know, where nobody has to say who they are.
NO_LOGIN: Final = (
    "No login is set: whoever can open this page, any user of this machine included, has all rights. "
    "POSTBACKS_WEB_USERS or POSTBACKS_WEB_TOKEN sets one."
)


def make_app(config: Config) -> Starlette:
    """Make the application of one web process."""
    reading, signers, login = Reading(config.settings), Signers(config.settings), Login(config.settings)
    sessions = SessionStore(config.settings, signers)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        reading.close()
        login.close()

    app = Starlette(
        routes=[
            *all_routes(),
            Mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static"),
        ],
        middleware=[
            Middleware(Headers),
            Middleware(GZipMiddleware, minimum_size=1000, compresslevel=5),
            Middleware(mistakes.Mistakes),
            Middleware(Hosts, config=config),
            Middleware(Origins),
            Middleware(Sessions, config=config, login=login, store=sessions, reading=reading),
        ],
        exception_handlers={HTTPException: mistakes.http_error, PostbacksError: mistakes.our_error},
        lifespan=lifespan,
    )
    app.state.config = config
    app.state.reading = reading
    app.state.signers = signers
    app.state.login = login
    app.state.sessions = sessions
    app.state.links = Links(config.settings, signers)
    app.state.notice = "" if config.has_login else NO_LOGIN
    return app
