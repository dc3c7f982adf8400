"""Rows that say how each block of a page is checked; a module for each few pages.

A row is known by the block's first line, without its comment. "```sh" is the row of all blocks of a language that have
none of their own; "```" that of commands in indented blocks.

A module's ``CHECKS`` has its pages, or ``up``'s and the help's words, and its ``BEFORE`` the Python that runs before
a page's own.
"""

from __future__ import annotations

import importlib
import pkgutil

from block_checks import Check

CHECKS: dict[str, dict[str, Check]] = {}
BEFORE: dict[str, str] = {}

for _module in pkgutil.iter_modules(__path__):
    _table = importlib.import_module(f"{__name__}.{_module.name}")
    assert not CHECKS.keys() & _table.CHECKS.keys(), "a page has its rows in one module"
    CHECKS |= _table.CHECKS
    BEFORE |= getattr(_table, "BEFORE", {})
