"""Name of whoever acts, for the journal."""

from __future__ import annotations

import getpass
import os
from typing import Final

from postbacks.printable import printable

#: Variable that names whoever uses the command line.
USER: Final = "POSTBACKS_USER"
#: Most characters of a name.
MAX_USER: Final = 100


def current_user() -> str:
    """Return the user of this process: ``POSTBACKS_USER``, else the system's login, printable and never empty."""
    name = os.environ.get(USER, "").strip() or _login()
    return printable(name)[:MAX_USER]


def user_of(by: str | None) -> str:
    """Return the name of whoever acts as it is kept: ``by``, or the user of this process where that is not given."""
    return printable(by)[:MAX_USER] if by else current_user()


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user id without a name
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
