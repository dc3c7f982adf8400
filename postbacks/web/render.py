"""Templates: each value that is shown is made printable and escaped, by the environment and by no page.

Receivers' answers, names, URLs and words of messages come from outside. ``finalize`` writes what Unicode does not call
printable (control characters, bidirectional controls) as an escape; autoescape does the rest.

==================  ==================================================================================
``{{ ms | when }}``       a time as people say it, the exact one on hover: ``3 min ago``
``{{ ms | about }}``      the same of what moves on with each second
``{{ ms | moment }}``     the exact time, in the viewer's zone
``{{ s | zoned(ms) }}``   a sentence that was written then, its times in the viewer's zone
``{{ ms | lasting }}``    a duration: ``2 h 5 min``
``{{ n | number }}``      ``1,204``; a dash for None
``{{ n | bytes }}``       ``1.5 MB``
``{{ s | state }}``       a state or an outcome in its colour
``{{ s | lines }}``       a text of several lines (XML, an answer) for ``<pre>``
``{{ s | prose }}``       sentences; what stands between backticks is a command
``{{ s | shorten(80) }}`` a text as far as it fits, the whole of it on hover
``{{ s | short_id }}``    the begin of an id, the whole of it on hover
``{{ n | counted("postback") }}``  a number with its noun
``{{ url(path, key=value) }}``     an address with its query
``{{ path_to("story", value) }}``  a path whose parts may have any character
``{{ live_part() }}``     attributes of the element that ``live.py`` keeps up to date
``{{ may("support") }}``  whether whoever asks has this role
==================  ==================================================================================
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from postbacks.ledger.record import iso
from postbacks.monitor.moments import duration, in_zone
from postbacks.printable import printable, printable_lines
from postbacks.version import VERSION
from postbacks.web.addresses import is_customers, path_to
from postbacks.web.zones import name_of, written, zone_of

if TYPE_CHECKING:
    from jinja2.runtime import Context
    from starlette.requests import Request

_HERE: Final = Path(__file__).parent
#: Navigation: title, address.
NAVIGATION: Final = (
    ("Now", "/"),
    ("Incidents", "/incidents"),
    ("Postbacks", "/postbacks"),
    ("Accounts", "/accounts"),
    ("Opt-outs", "/opt-outs"),
    ("Jobs", "/jobs"),
    ("Journal", "/journal"),
    ("System", "/system"),
)
#: Navigation of a customer.
CUSTOMERS_NAVIGATION: Final = (
    ("Your receiver", "/customer/"),
    ("Postbacks", "/customer/postbacks"),
    ("Your URL", "/customer/urls"),
)
#: What a cell shows of nothing.
DASH: Final = "–"  # noqa: RUF001 - that is what a dash is
_UUID_LENGTH: Final = 36
_OPTION: Final = re.compile(r"(?<!\S)--[a-z-]{1,30}(?!\S)")


def render(
    request: Request, template: str, *, status: int = 200, headers: dict[str, str] | None = None, **facts: Any
) -> HTMLResponse:
    """Render a template for whoever asks.

    Args:
        request: of the page.
        template: its name.
        status: of the answer.
        headers: of the answer.
        facts: what the template shows.
    """
    return HTMLResponse(text(request, template, **facts), status_code=status, headers=headers)


def text(request: Request, template: str, **facts: Any) -> str:
    """Return a template's text for whoever asks."""
    viewer, zone = getattr(request.state, "viewer", None), zone_of(request)
    return (
        environment()
        .get_template(template)
        .render(
            request=request,
            path=request.url.path,
            viewer=viewer,
            link=getattr(request.state, "link", None),
            layout="customer_base.html" if is_customers(request.url.path) else "base.html",
            may=lambda role: viewer is not None and viewer.may(role),
            zone=zone,
            zone_name=name_of(zone),
            here=address_of(request),
            has_session=getattr(request.state, "has_session", False),
            config=request.app.state.config,
            notice=request.app.state.notice,
            **facts,
        )
    )


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the environment of all templates."""
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "when": when,
        "about": about,
        "moment": moment,
        "zoned": zoned,
        "lasting": lasting,
        "number": number,
        "bytes": in_bytes,
        "state": state,
        "lines": lines,
        "prose": prose,
        "shorten": shorten,
        "short_id": short_id,
        "counted": counted,
    }
    made.globals |= {
        "live_part": live_part,
        "navigation": NAVIGATION,
        "customers_navigation": CUSTOMERS_NAVIGATION,
        "version": VERSION,
        "static": static_url,
        "url": url,
        "path_to": path_to,
    }
    return made


def _shown(value: Any) -> Any:
    """Make printable what a template shows; None is a dash."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return DASH
    return printable(value) if isinstance(value, str) else value


@lru_cache(maxsize=16)
def static_url(name: str) -> str:
    """Return the address of a static file, with its digest: a new version is another address."""
    digest = sha256((_HERE / "static" / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def url(path: str, **query: Any) -> str:
    """Return an address with its query; what is empty is left out."""
    left = {name: value for name, value in query.items() if value not in {None, ""}}
    return f"{path}?{urlencode(left)}" if left else path


def address_of(request: Request) -> str:
    """Return the address of a request's page, with its query and without its host."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


@pass_context
def live_part(context: Context, *, once: bool = False) -> Markup:
    """Return the attributes of the element whose content is read again every 2 s, or once where the page waits for a part.

    Args:
        context: of the page.
        once: not every 2 s.
    """
    triggers = (["load"] if context.get("pending") else []) + ([] if once else ["every 2s"])
    if not triggers:
        return Markup()
    return Markup('id="live" data-live hx-get="{}" hx-trigger="{}" hx-swap="innerHTML"').format(
        context["here"], ", ".join(triggers)
    )


# -- filters ---------------------------------------------------------------------------------------


@pass_context
def when(context: Context, ms: int | None) -> str | Markup:
    """Show a time as people say it, to the minute, the exact one on hover."""
    if ms is None:
        return DASH
    return _time(context, ms, relative(ms, steady_now_ms(ms, int(time.time() * 1000))))


@pass_context
def about(context: Context, ms: int | None) -> str | Markup:
    """Show a time as ``when`` does, the exact one to the minute, too: of what moves on with each second."""
    return when(context, None if ms is None else ms // 60_000 * 60_000)


def steady_now_ms(ms: int, now_ms: int) -> int:
    """Return the begin of this minute, from which distances to all times are told: they change once a minute, and together.

    Of a time within this minute it is now.
    """
    begin_ms = now_ms // 60_000 * 60_000
    return now_ms if begin_ms < ms <= now_ms else begin_ms


@pass_context
def moment(context: Context, ms: int | None) -> str | Markup:
    """Show the exact time, to the second, in the viewer's zone."""
    if ms is None:
        return DASH
    return _time(context, ms, written(ms, context["zone"], "%Y-%m-%d %H:%M:%S"))


@pass_context
def zoned(context: Context, sentence: str, written_ms: int | None = None) -> str:
    """Show a sentence that was written at a time, by default now, with its times in the viewer's zone."""
    now_ms = int(time.time() * 1000)
    return in_zone(sentence, now_ms if written_ms is None else written_ms, now_ms, context["zone"])


def _time(context: Context, ms: int, words: str) -> Markup:
    exact = written(ms, context["zone"], f"%Y-%m-%d %H:%M:%S.{ms % 1000:03d} %Z")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(iso(ms), exact, words)


def relative(ms: int, now_ms: int) -> str:
    """Put a time into words by its distance from now: just now, 3 min ago, in 2 h 5 min."""
    distance_ms = now_ms - ms
    if abs(distance_ms) < 60_000:
        return "just now" if distance_ms >= 0 else "in a moment"
    words = lasting(abs(distance_ms))
    return f"{words} ago" if distance_ms > 0 else f"in {words}"


def lasting(ms: float | None) -> str:
    """Put a duration into words: 412 ms, 45 s, 7 min, 2 h 5 min, 3 d 1 h."""
    if ms is None:
        return DASH
    ms = max(0, int(ms))
    return duration(ms) if ms >= 1000 else f"{ms} ms"


def number(value: float | None) -> str:
    """Show a number with its thousands apart."""
    return DASH if value is None else f"{value:,}"


def counted(value: int | None, noun: str, plural: str = "") -> str:
    """Show a number with its noun: 1 postback, 1,204 postbacks."""
    return f"{number(value)} {noun if value == 1 else plural or f'{noun}s'}"


def in_bytes(value: float | None) -> str:
    """Show a number of bytes: 812 B, 1.5 MB."""
    if value is None:
        return DASH
    for unit in ("B", "KB", "MB", "GB"):
        if abs(value) < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return ""


def state(name: str | None, words: str = "") -> str | Markup:
    """Show a state or an outcome in its colour (``style.css`` has a class of each)."""
    if not name:
        return DASH
    mark = "".join(c if c.isalnum() else "-" for c in name.lower())
    return Markup('<span class="state {}">{}</span>').format(f"is-{mark}", printable(words or name))


def lines(value: str | None) -> Markup:
    """Show a text of several lines; each is made printable."""
    return escape(printable_lines((value or "").replace("\t", "    ")))


def shorten(value: str | None, most: int = 80) -> str | Markup:
    """Show a text as far as it fits, the whole of it on hover."""
    shown = printable(value or "")
    if len(shown) <= most:
        return shown or DASH
    return Markup('<span title="{}">{}…</span>').format(shown[:1000], shown[: most - 1])


def short_id(value: str) -> str | Markup:
    """Show the begin of an id where that is a UUID, which eight characters tell from others, the whole of it on hover."""
    return shorten(value, 9 if len(value) == _UUID_LENGTH else 40)


def _command(words: str) -> Markup:
    """Show a command, whose options are not broken behind their hyphens."""
    return Markup(_OPTION.sub(r'<span class="whole">\g<0></span>', str(escape(words))))  # noqa: S704 - escaped before


def prose(value: str | None) -> Markup:
    """Show sentences; what stands between backticks is a command."""
    parts = printable(value or "").split("`")
    if len(parts) % 2 == 0:  # one of them closes nothing
        return escape("`".join(parts))
    return Markup("").join(
        Markup("<code>{}</code>").format(_command(part)) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )
