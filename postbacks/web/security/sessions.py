"""Sessions: who asks, found out before any page is.

A session is a signed cookie: whose it is, by what they logged in, when it began, and when a page was last opened. It ends
after ``POSTBACKS_WEB_IDLE_S`` without one (a live part is none), after ``POSTBACKS_WEB_SESSION_S`` in any case, with the
password it was opened by, and at the logout, which the broker tells to all web processes.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from itsdangerous import BadData
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from postbacks import keys
from postbacks.broker.client import client_for
from postbacks.broker.errors import broker_errors
from postbacks.errors import BrokerError, PostbacksError
from postbacks.logs import EventLog
from postbacks.operate.identity import current_user
from postbacks.web import live, mistakes
from postbacks.web.addresses import is_customers, own_path
from postbacks.web.layer import Layer
from postbacks.web.render import address_of as page_of
from postbacks.web.security import proxy
from postbacks.web.security.cookies import Cookie
from postbacks.web.security.host import PROBE
from postbacks.web.security.origin import leading_on
from postbacks.web.security.roles import Viewer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from postbacks.settings import Settings
    from postbacks.web.config import Config
    from postbacks.web.reading import Reading
    from postbacks.web.security.key import Signers
    from postbacks.web.security.login import Identity, Login

log = EventLog(__name__)

#: Begins of the paths that are for everybody; all others are for whoever has logged in.
PUBLIC: Final = ("/static/", "/login", PROBE)
#: Cookie of a session, for this host and all of its paths.
_COOKIE: Final = Cookie("__Host-postbacks", "postbacks", "/")
#: Seconds of a session after which a page that is opened renews it.
_RENEW_S: Final = 30
#: Seconds for which the list of ended sessions is kept.
_ENDED_FRESH_S: Final = 2.0
#: Seconds for the key of the broker.
_KEY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Session:
    """Session of a cookie.

    Attributes:
        id: random.
        name: of its owner; empty for whoever has logged in by the token.
        mark: of what they logged in by.
        began_s: when, in seconds since the epoch.
        age_s: seconds since a page was last opened.
    """

    id: str
    name: str
    mark: str
    began_s: int
    age_s: float = 0.0


class SessionStore:
    """Sessions of one web process.

    Args:
        settings: with their times, and the broker.
        signers: of the process.
    """

    def __init__(self, settings: Settings, signers: Signers) -> None:
        self._settings = settings
        self._signers = signers
        self._ended: set[str] = set()

    @property
    def has_key(self) -> bool:
        """True where ``read`` need not ask the broker for the key."""
        return self._signers.is_ready

    def begin(self, identity: Identity, *, by_token: bool) -> Session:
        """Begin a session, with an id of its own."""
        name = "" if by_token else identity.viewer.name
        return Session(secrets.token_urlsafe(12), name, identity.mark, int(time.time()))

    def set_cookie(self, response_headers: MutableHeaders, scope: Scope, session: Session) -> None:
        """Set the cookie of a session on a reply; the time of the signature says when a page was last opened."""
        value = self._signers.signer("session").dumps(
            [session.id, session.name, session.mark, session.began_s]
        )
        assert isinstance(value, str)
        response_headers.append("Set-Cookie", _COOKIE.header(scope, value))

    def drop_cookie(self, response_headers: MutableHeaders, scope: Scope) -> None:
        """Take the cookie back."""
        response_headers.append("Set-Cookie", f"{_COOKIE.header(scope, '')}; Max-Age=0")

    def read(self, scope: Scope) -> Session | None:
        """Read the session of a request; None where there is none that goes on.

        Raises:
            BrokerError: the key is the broker's, which cannot be used.
        """
        value = _COOKIE.read(scope)
        if not value:
            return None
        try:
            fields, signed = self._signers.signer("session").loads(
                value, max_age=int(self._settings.web_idle_s), return_timestamp=True
            )
            session_id, name, mark, began_s = fields
            session = Session(session_id, name, mark, began_s, time.time() - signed.timestamp())
        except (BadData, ValueError, TypeError):
            return None
        is_over = time.time() - session.began_s > self._settings.web_session_s
        return None if is_over or session.id in self._ended else session

    def end(self, session: Session) -> None:
        """End a session for all web processes.

        Raises:
            BrokerError: the others cannot be told; here it has ended.
        """
        self._ended.add(session.id)
        now_s = int(time.time())
        with broker_errors():
            pipe = self._client().pipeline(transaction=True)
            pipe.zremrangebyscore(keys.WEB_ENDED, "-inf", now_s)
            pipe.zadd(keys.WEB_ENDED, {session.id: session.began_s + int(self._settings.web_session_s) + 1})
            pipe.execute()

    def refresh(self) -> None:
        """Read which sessions have ended; those known stay while the broker cannot be asked."""
        try:
            with broker_errors():
                ended: Any = self._client().zrange(keys.WEB_ENDED, 0, -1)
        except BrokerError:
            return
        self._ended = {session_id.decode() for session_id in ended}

    def _client(self) -> Any:
        return client_for(self._settings.broker_url, self._settings.broker_timeout_s)


class Sessions(Layer):
    """Sets ``request.state.viewer``, or leads to the login; without one everybody on this machine has all rights."""

    def __init__(
        self, app: ASGIApp, config: Config, login: Login, store: SessionStore, reading: Reading
    ) -> None:
        super().__init__(app)
        self._config = config
        self._login = login
        self._store = store
        self._reading = reading

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        state = scope.setdefault("state", {})
        state.update(viewer=None, session=None, has_session=False)
        is_public = scope["path"].startswith(PUBLIC)
        if scope["path"].startswith("/static/") or scope["path"] == PROBE:
            await self._app(scope, receive, send)
            return
        if not self._config.has_login and proxy.is_forwarded(scope):
            await self._refuse(scope, receive, send, 403, _FORWARDED)
            return
        if is_customers(scope["path"]):  # a link opens them, and no login
            await self._app(scope, receive, send)
            return
        if not self._config.has_login:
            state["viewer"] = Viewer(current_user(), "admin")
        elif name := proxy.user_of(scope, self._config.settings):
            state["viewer"] = self._login.of_proxy(name)
        else:
            try:
                session = await self._session(scope)
            except PostbacksError as error:  # its words name our broker, and strangers read the page
                log.warning("web.session_unread", str(error))
                await self._refuse(scope, receive, send, 503, _NOT_NOW)
                return
            if session is not None:
                send = self._renewing(scope, send, session)
        if state["viewer"] is None and not is_public:
            await self._ask(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _session(self, scope: Scope) -> Session | None:
        """Find the session of a request and its owner, off the event loop: the broker and a file are asked."""
        if not Headers(scope=scope).get("Cookie"):
            return None
        await self._reading.shared(
            "web-ended", _ENDED_FRESH_S, self._store.refresh, stale_s=2 * _ENDED_FRESH_S
        )
        if self._store.has_key:  # nobody waits for a thread to be known
            session = self._store.read(scope)
        else:
            session = await self._reading.run(lambda: self._store.read(scope), _KEY_S)
        viewer = self._login.find(session.name, session.mark) if session else None
        if session is None or viewer is None:
            return None
        scope["state"].update(viewer=viewer, session=session, has_session=True)
        return session

    def _renewing(self, scope: Scope, send: Send, session: Session) -> Send:
        """Let the reply carry the session's cookie anew, where a page was opened."""
        if session.age_s < _RENEW_S or live.is_live(Request(scope)):
            return send

        async def send_renewed(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["state"].get("session") is session:
                self._store.set_cookie(MutableHeaders(scope=message), scope, session)
            await send(message)

        return send_renewed

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lead whoever opens a page to the login; answer 401 to all else."""
        request, headers = Request(scope), Headers(scope=scope)
        response: Response
        if not (self._login.takes_passwords or self._login.takes_token):
            await self._refuse(scope, receive, send, 401, _ONLY_PROXY)
            return
        if request.method not in {"GET", "HEAD"} or live.is_live(request):
            await self._refuse(
                scope, receive, send, 401, "Nobody is logged in here, or the session has ended."
            )
            return
        if headers.get("Sec-Fetch-Site") == "cross-site" and headers.get("Sec-Fetch-Mode") == "navigate":
            response = leading_on(own_path(page_of(request)))
        else:
            response = RedirectResponse(f"/login?next={quote(page_of(request), safe='')}", 303)
        await response(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, status: int, sentence: str) -> None:
        await mistakes.show(Request(scope), status, sentence)(scope, receive, send)


_NOT_NOW: Final = "Who asks cannot be found out just now, as the broker does not answer; the log of the web process says more."
_FORWARDED: Final = (
    "This request came through a proxy, and no login is set: set POSTBACKS_WEB_USERS, POSTBACKS_WEB_TOKEN, or the proxy's "
    "own login (POSTBACKS_WEB_PROXY_HEADER)."
)
_ONLY_PROXY: Final = "The proxy in front of this dashboard must say who asks, and it did not."
