"""Names of accounts and ids of postbacks: what each may be."""

from __future__ import annotations

import re
import uuid
from typing import Final

from postbacks.errors import InvalidAccount
from postbacks.printable import quoted

_ACCOUNT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:+-]{0,127}\Z")
_ID: Final = re.compile(r"[\x21-\x7e]{1,255}\Z")


def check_name(account: object) -> str:
    """Check an account's name; an int and a UUID are taken as their text.

    Raises:
        InvalidAccount: says what a name may be.
    """
    has_text = not isinstance(account, str | bool) and isinstance(account, int | uuid.UUID)
    name = str(account) if has_text else account
    if not isinstance(name, str) or not _ACCOUNT.match(name):
        raise InvalidAccount(
            f"{quoted(name)} is no account name: 1 to 128 letters, digits and . _ @ : + -, the first a letter or digit."
        )
    return name


def is_id(value: object) -> bool:
    """Tell whether a value can be a postback's id: it travels in a header, so 1 to 255 printable ASCII characters."""
    return isinstance(value, str) and _ID.match(value) is not None
