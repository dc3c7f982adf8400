"""Page of the changes of an account: where its postbacks go, their headers, their TLS and their limits, a form each.

What is set and holds a secret (a URL's password or query, a header's value, a key) is shown by its name alone, and stays as it
is where nothing else is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from starlette.exceptions import HTTPException
from starlette.routing import Route

from postbacks.accounts import redis_accounts
from postbacks.accounts.edit import AccountChange
from postbacks.catalogue import ORIGINS
from postbacks.errors import BadSetting, InvalidAccount, UnknownAccount
from postbacks.names import check_name
from postbacks.operate import set_account
from postbacks.printable import quoted
from postbacks.urls import redacted
from postbacks.web.actions import acted, back
from postbacks.web.forms import by_field, read_form
from postbacks.web.reading import in_thread
from postbacks.web.render import render
from postbacks.web.security.roles import needs, viewer_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from postbacks.accounts import Account
    from postbacks.web.forms import Form

#: URLs of an account, and what each is called.
URLS: Final = {"url": "Postback URL", "mo_url": "MO URL", "pass_url": "Pass URL"}


def read(name: str) -> Account:
    """Read an account of our own store.

    Raises:
        UnknownAccount: there is none of that name.
        BadSetting: an application keeps the accounts.
    """
    account = redis_accounts().get(name)
    if account is None:
        raise UnknownAccount(f"There is no account {name!r}.")
    return account


def is_shown(url: str | None) -> bool:
    """Tell whether a URL holds nothing that a page hides."""
    return url is None or redacted(url) == url


@needs("admin")
async def page(request: Request) -> Response:
    """Show the forms, each with what is set."""
    name = check_name(request.path_params["name"])
    return _show(request, await in_thread(request, read, name))


@needs("admin")
async def change(request: Request) -> Response:
    """Change what a form is about; where it cannot be, show it again with the reason beside its field."""
    name, viewer = check_name(request.path_params["name"]), viewer_of(request)
    section = request.path_params["section"]
    if section not in SECTIONS:
        raise HTTPException(404)
    fields = await read_form(request)
    account = await in_thread(request, read, name)
    try:
        saved, is_logged_only = await acted(
            request,
            set_account,
            SECTIONS[section](account, fields),
            why=fields.get("why", ""),
            by=viewer.name,
        )
    except (InvalidAccount, BadSetting) as error:
        mistakes = by_field(error, {field: fields.get(field, "") for field in FIELDS[section]})
        return _show(request, account, section, fields, mistakes)
    if saved.warnings:
        return _show(request, saved.after, warnings=saved.warnings)
    return back(f"/accounts/{name}", is_logged_only=is_logged_only)


def _show(
    request: Request,
    account: Account,
    section: str = "",
    fields: Mapping[str, str] | None = None,
    mistakes: Mapping[str, str] | None = None,
    warnings: list[str] | None = None,
) -> Response:
    given = fields or {}

    def value(of: str, field: str, stored: Any) -> str:
        """Return what a field has: what was typed into it, else what is set."""
        if of == section and field in given:
            return given[field]
        return "" if stored is None else f"{stored:g}" if isinstance(stored, float) else str(stored)

    return render(
        request,
        "account_change.html",
        status=400 if mistakes else 200,
        account=account,
        name=account.name,
        urls=URLS,
        origins=ORIGINS,
        section=section,
        value=value,
        mistakes=mistakes or {},
        warnings=warnings or [],
        is_shown=is_shown,
        shown_url=redacted,
    )


def urls_of(fields: Form) -> dict[str, Any]:
    """Return the URLs that a form gives."""
    return {name: typed for name in URLS if (typed := fields.get(name, "").strip())}


def off_of(fields: Form) -> frozenset[str]:
    """Return the origins that a form leaves unchecked."""
    return frozenset(ORIGINS) - set(fields.getlist("on"))


def _urls(account: Account, fields: Form) -> AccountChange:
    """Replace URLs and origins; a URL that is not shown stays where nothing is typed, unless it is taken off."""
    given = urls_of(fields)
    hidden = {name for name in URLS if not is_shown(getattr(account, name))}
    keep = hidden - given.keys() - set(fields.getlist("drop"))
    return AccountChange(account.name, **given, keep=frozenset(keep), off=off_of(fields))


def _headers(account: Account, fields: Form) -> AccountChange:
    """Add or replace a header, and take off those that are checked."""
    headers = dict.fromkeys(fields.getlist("drop"), "")
    if name := fields.get("header", "").strip():
        headers = {known: value for known, value in headers.items() if known.lower() != name.lower()}
        headers[name] = fields.get("text", "").strip(" \t")
        if not headers[name]:
            raise InvalidAccount("text: a header has a value; to take one off, check it.")
    if not headers:
        raise InvalidAccount("header: give a name and a value, or check what is to be taken off.")
    return AccountChange(account.name, headers=headers)


def _tls(account: Account, fields: Form) -> AccountChange:
    """Set what is given, and take off what is checked."""
    texts: dict[str, Any] = {
        name: f"{text}\n"
        for name in ("ca_bundle", "client_cert", "client_key")
        if (text := fields.get(name, "").replace("\r\n", "\n").strip())
    }
    pins = tuple(fields.get("pinned_keys", "").split())
    made = AccountChange(
        account.name,
        **texts,
        pinned_keys=pins,
        drop=frozenset(fields.getlist("drop")),
    )
    if not (made.drop or pins or texts):
        raise InvalidAccount("Give what is to be set, or check what is to be taken off.")
    return made


def _limits(account: Account, fields: Form) -> AccountChange:
    """Set limits; what is left empty goes back to its default."""
    given = {field: fields.get(field, "").strip() for field in LIMITS}
    return AccountChange(
        account.name,
        **{field: LIMITS[field](field, text) for field, text in given.items() if text},
        drop=frozenset(field for field, text in given.items() if not text),
    )


def _text(_field: str, text: str) -> str:
    return text


def _number(field: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidAccount(f"{field}: {quoted(text)} is no number.") from None


def _whole(field: str, text: str) -> int:
    number = _number(field, text)
    if not number.is_integer():
        raise InvalidAccount(f"{field}: {quoted(text)} is no whole number.")
    return int(number)


#: Limits of an account that a form sets -> how each is read.
LIMITS: Final[Mapping[str, Callable[[str, str], Any]]] = {
    "connect_timeout_s": _number,
    "answer_timeout_s": _number,
    "rate": _text,
    "max_transfers": _whole,
    "weight": _number,
}
#: Forms of the page -> the change that each asks for.
SECTIONS: Final[Mapping[str, Callable[[Account, Form], AccountChange]]] = {
    "urls": _urls,
    "headers": _headers,
    "tls": _tls,
    "limits": _limits,
}
#: Their fields, beside which the reason of a refusal stands.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "urls": tuple(URLS),
    "headers": ("header", "text"),
    "tls": ("ca_bundle", "client_cert", "client_key", "pinned_keys"),
    "limits": tuple(LIMITS),
}

routes = [
    Route("/accounts/{name}/change", page),
    Route("/accounts/{name}/change/{section}", change, methods=["POST"]),
]
