"""Addresses of the dashboard's own pages."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlsplit

#: Begin of the paths of customers' pages, and of the address that opens them.
CUSTOMERS: Final = "/customer"
LINK: Final = "/c/"


def own_path(address: str) -> str:
    """Return an address where it is a page of this dashboard, else the first page: nobody is led elsewhere."""
    is_own = (
        address.isprintable()
        and address.startswith("/")
        and not address.startswith(("//", "/\\"))
        and not urlsplit(address).netloc
    )
    return address if is_own else "/"


def path_to(*parts: str) -> str:
    """Return the path of a page, each part of it quoted: ids and TRACKINGIDs may have any character."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def is_customers(path: str) -> bool:
    """Tell whether a page is for customers: operators' rights are none there, and theirs are none elsewhere."""
    return path == CUSTOMERS or path.startswith((f"{CUSTOMERS}/", LINK))


def logged_path(path: str) -> str:
    """Return a path as a log has it: whoever reads logs gets no link."""
    return f"{LINK}…" if path.startswith(LINK) else path
