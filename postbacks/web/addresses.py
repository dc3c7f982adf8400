"""Addresses of the dashboard's own pages."""

from __future__ import annotations

from urllib.parse import urlsplit


def own_path(address: str) -> str:
    """Return an address where it is a page of this dashboard, else the first page: nobody is led elsewhere."""
    is_own = (
        address.isprintable()
        and address.startswith("/")
        and not address.startswith(("//", "/\\"))
        and not urlsplit(address).netloc
    )
    return address if is_own else "/"
