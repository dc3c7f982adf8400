"""Opt-outs: events by which a person takes back a consent.

N302 and N304 say so by their code; a message that somebody sent to us does where the whole of it is one word of the list,
however it is written. "Please stop" is none: who reads more into a text than its one word may undo what was meant.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

#: Words of the United States: what 47 CFR 64.1200(a)(10) lists as a revocation of consent in a reply to a text message, and
#: STOPALL, as carriers take it.
WORDS: Final = ("stop", "stopall", "quit", "end", "revoke", "opt out", "cancel", "unsubscribe")

#: Rows of the catalogue that are opt-outs whatever their tags say.
_BY_CODE: Final = frozenset({("SUB", "N302"), ("EMAIL_SUB", "N304")})
#: Origins of messages that people send to us.
_MESSAGES: Final = frozenset({"SMS_MO", "MMS_MO"})
#: Tags that have the words of such a message; documents are rendered by ``xml.py``, an element a tag without attributes.
_WORDS_OF_MESSAGE: Final = re.compile(rb"<(?:TEXT|KEYWORD|SUBJECT)>([^<]*)</")
#: What ``xml.py`` writes for characters that are no letters; they are no part of a word.
_ESCAPES: Final = re.compile(r"&(?:amp|lt|gt|#13);")
#: All but letters and digits.
_SIGNS: Final = re.compile(r"[\W_]+")
#: Bytes of a text, those of one SMS, past which it is none of the words whatever signs stand around it: so that long ones cost
#: nothing.
_BYTES_MAX: Final = 160


def is_opt_out(origin: str, code: str, document: bytes, words: frozenset[str]) -> bool:
    """Tell whether an event is an opt-out.

    Args:
        origin: its ORIGIN.
        code: its CODE.
        document: as it is rendered.
        words: of ``words_of``.
    """
    if origin in _MESSAGES:
        return any(
            len(text) <= _BYTES_MAX
            and normalised(_ESCAPES.sub(" ", text.decode("utf-8", "replace"))) in words
            for text in map(bytes.strip, _WORDS_OF_MESSAGE.findall(document))
        )
    return (origin, code) in _BY_CODE


@lru_cache(maxsize=8)
def words_of(more: tuple[str, ...]) -> frozenset[str]:
    """Return the words that are opt-outs, normalised: those of the list and those of the setting."""
    return frozenset(map(normalised, (*WORDS, *more)))


def normalised(text: str) -> str:
    """Return the letters and digits of a text in the one spelling that it is compared in: STOP, "s.t.o.p !" and STOP in wide letters are one."""
    return _SIGNS.sub("", unicodedata.normalize("NFKC", text).casefold())
