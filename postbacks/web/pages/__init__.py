"""Pages, a module each: ``routes`` are its addresses, and each handler names the role that it needs (``needs``)."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from starlette.routing import BaseRoute


def all_routes() -> list[BaseRoute]:
    """Return the routes of all pages."""
    names = sorted(module.name for module in iter_modules(__path__))
    return [route for name in names for route in import_module(f"{__name__}.{name}").routes]
