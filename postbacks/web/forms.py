"""Forms that a browser sends, as ``application/x-www-form-urlencoded``: bounded, and nothing else is taken.

::

    fields = await read_form(request)
    name, ids = fields.get("name", ""), fields.getlist("id")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from starlette.datastructures import ImmutableMultiDict
from starlette.exceptions import HTTPException

from postbacks.names import check_name
from postbacks.urls import redacted
from postbacks.web.security.roles import viewer_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from postbacks.web.security.roles import Viewer

#: Bytes of a form: ten thousand selected rows of 64 bytes are less.
BYTES_MAX: Final = 1_000_000
#: Fields of a form.
FIELDS_MAX: Final = 20_000
_TYPE: Final = "application/x-www-form-urlencoded"

Form = ImmutableMultiDict[str, str]


async def read_form(request: Request) -> Form:
    """Read the fields of a form.

    Raises:
        HTTPException: it is too large (413), or no such form (415, 400).
    """
    if request.headers.get("Content-Type", _TYPE).partition(";")[0].strip().lower() != _TYPE:
        raise HTTPException(415, "A form is sent as application/x-www-form-urlencoded.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BYTES_MAX:
            raise HTTPException(413, f"The form is larger than {BYTES_MAX:,} bytes: select less.")
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
    except ValueError:
        raise HTTPException(400, "The form cannot be read.") from None
    return Form(fields)


async def read_account_form(request: Request) -> tuple[str, Form, Viewer]:
    """Read a form about the account of an address: its name, the fields, and whoever asks.

    Raises:
        InvalidAccount: that is no name.
        HTTPException: as ``read_form``.
    """
    return check_name(request.path_params["name"]), await read_form(request), viewer_of(request)


def by_field(error: Exception, typed: Mapping[str, str]) -> dict[str, str]:
    """Sort the sentences of a refusal by the fields of a form that they name, or whose value they quote; '' is the form's own.

    Args:
        error: the refusal.
        typed: name of a field -> what was typed, or '' for what no sentence may be known by.
    """
    found: dict[str, str] = {}
    for sentence in str(error).split("; "):
        named, colon, words = sentence.partition(": ")
        field = named.partition(".")[0]
        if not colon or field not in typed:
            field, words = (
                next((name for name, value in typed.items() if _quotes(sentence, value)), ""),
                sentence,
            )
        found[field] = "; ".join(filter(None, (found.get(field), words)))
    return found


def _quotes(sentence: str, value: str) -> bool:
    """Tell whether a sentence quotes what was typed, a URL without what is hidden of it."""
    shown = redacted(value)
    return bool(value) and (repr(shown) in sentence or f" {shown}: " in sentence)
