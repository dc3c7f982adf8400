"""Addresses of the dashboard's own pages."""

from __future__ import annotations

from urllib.parse import quote, urlsplit


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
