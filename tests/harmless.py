"""Text that a terminal would obey, and how to see that none is left."""

from __future__ import annotations

#: ESC, C1's CSI, bidi controls old and new, an isolate, the Arabic letter mark, a zero-width space, a tag character,
#: separators, half a character.
EVIL = "\x1b[2J\x9b31m\u202e\u200f\u2066\u061c\u200b\ufeff\U000e0041\u2028\u2029\x85\r\x00\x7f\ud800"


def is_harmless(text: str) -> bool:
    """Tell whether a terminal shows each character as itself."""
    return all(character.isprintable() or character == "\n" for character in text)
