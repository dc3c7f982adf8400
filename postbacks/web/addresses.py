"""Addresses of the dashboard's own pages."""

from __future__ import annotations

from urllib.parse import urlsplit


def own_path(address: str) -> str:
    """Return an address where it is a page of this dashboard, else the first page: nobody is led elsewhere."""
    parts = urlsplit(address) if address.isprintable() else urlsplit("")
    is_own = address.startswith("/") and not address.startswith(("//", "/\\")) and not parts.netloc
    return address if is_own else "/"
