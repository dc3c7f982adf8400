"""Lua scripts: put together from their files, with the keys that they name and the digest that the broker knows them by."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

from postbacks import keys

#: A full broker runs a script with this flag, so what is accepted goes on: its moves may pass ``maxmemory``. Without it
#: the server refuses a script as soon as its first command may take memory, if only to renew a lease.
_WHEN_FULL: Final = "#!lua flags=allow-oom\n"
_STRING_OR_COMMENT: Final = re.compile(r"'[^'\n]*'|--[^\n]*")


class Script(NamedTuple):
    """A Lua script as the broker gets it.

    Attributes:
        text: of all its files.
        digest: SHA-1 of the text, the script's name at the broker.
        keys: what it is called with, in the order in which its first line gives them their names.
    """

    text: str
    digest: str
    keys: tuple[str, ...]


@cache
def load(*paths: str, when_full: bool = False) -> Script:
    """Put a script together from files below ``postbacks/``, such as ``queue/_shared`` and ``doctor/lane``.

    A file names keys by their constants of ``keys.py``; the script's first line unpacks ``KEYS`` into those that occur.

    Args:
        paths: the files in order.
        when_full: whether a full broker is to run it too.
    """
    body = "".join((files("postbacks") / f"{path}.lua").read_text("utf-8") for path in paths)
    words = set(re.findall(r"\b[A-Z][A-Z_]*\b", _STRING_OR_COMMENT.sub("", body)))
    named = {name: key for name, key in keys.by_name().items() if name in words}
    values: list[str] = []
    keys_of_it: list[str] = []
    for key in named.values():
        parts = (key,) if isinstance(key, str) else key
        places = [f"KEYS[{len(keys_of_it) + number}]" for number in range(1, len(parts) + 1)]
        values.append(places[0] if isinstance(key, str) else f"{{ {', '.join(places)} }}")
        keys_of_it += parts
    unpacking = f"local {', '.join(named)} = {', '.join(values)}\n" if named else ""
    text = _WHEN_FULL * when_full + unpacking + body
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), tuple(keys_of_it))
