"""Spelling of business values: the one form in which a value is compared, searched and hashed."""

from __future__ import annotations

import re
from typing import Final

#: Characters that people write into a phone number.
_PUNCTUATION: Final = re.compile(r"[\s().\-/\u2010-\u2015\u00a0]+")
#: Zero that is dialled within a country alone, as people write it behind the country's code: +44 (0)20 7946 0018.
_TRUNK: Final = "(0)"
#: Digits of a number with the country code 1, and of one without it (North American Numbering Plan).
_NANP_DIGITS: Final = 11


def canonical(kind: str, text: str) -> str:
    """Return a value in the one spelling that it is compared in.

    A number keeps its digits alone, without what is dialled before a country's code (+, 00, and 011 of more than eleven
    digits), without a zero in parentheses behind it, and without a leading 1 of eleven digits, so that +1 (555) 231-0137,
    0015552310137 and 5552310137 are one, as are +44 (0)20 7946 0018 and 011 44 20 7946 0018. An e-mail address is compared
    in lower case; all others as they are.
    """
    if kind == "email":
        return text.strip().lower()
    if kind != "number":
        return text
    digits = text
    if not text.isdecimal():
        if text.lstrip().startswith(("+", "00", "011")):
            digits = text.replace(_TRUNK, "", 1)
        digits = _PUNCTUATION.sub("", digits).removeprefix("+")
    # No document has a number with a leading 00.
    digits = digits.removeprefix("00")
    if len(digits) > _NANP_DIGITS:
        digits = digits.removeprefix("011")
    return digits[1:] if len(digits) == _NANP_DIGITS and digits.startswith("1") else digits
