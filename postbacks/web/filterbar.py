r"""Words of the filter bar: the options of ``postbacks list``, as ``account:acme state:dead since:2h number:"+1 555 231 0137"``.

A filter is ``name:value``, or a word alone that takes no value (``FLAGS``). A value with spaces stands in double quotes, in
which ``\"`` is a quote and ``\\`` a backslash. Each filter is given once.

::

    bar = parse("account:acme dead since:2h", now_ms=clock, zone=UTC)
    bar.query                      # of the history
    bar.command()                  # postbacks list --account acme --dead --since 2h
    bar.put("code", "N202").text   # account:acme dead since:2h code:N202
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks.catalogue import EVENTS, ORIGINS
from postbacks.errors import InvalidQuery
from postbacks.history.filters import MIN_DIGITS, STATES, check
from postbacks.history.query import Query
from postbacks.history.times import duration_ms, window
from postbacks.ledger.record import iso
from postbacks.names import is_id
from postbacks.operate.jobs.job import filters_of
from postbacks.printable import quoted
from postbacks.transport.outcomes import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from datetime import tzinfo

#: Filter -> what its value is; in the order in which they are offered.
FILTERS: Final = {
    "account": "an account's name",
    "state": "delivered, dead, skipped, cancelled, waiting, held, sending, parked, forgotten",
    "code": "N211, N402, …",
    "since": "2h, 14:00, yesterday, 2026-11-28, 2026-11-28T14:00+01:00",
    "until": "before this time; a date's whole day",
    "between": 'both at once: "14:00 15:00"',
    "number": "a phone number of FROM, TO or MOBILE, in any spelling",
    "tracking-id": "TRACKINGID, exactly",
    "mms-id": "MMSID, exactly",
    "email": "EMAIL, in any case",
    "sub-id": "SUBID, exactly",
    "serial-number": "SERIALNUMBER, exactly",
    "host": "sent to this host",
    "reason": "not delivered for this reason: refused, no_url, …",
    "outcome": "of the latest POST: status, refused, dns, tls, …",
    "status": "HTTP status of the latest answer",
    "attempts": "exactly so many POSTs were begun",
    "slower-than": "the latest POST took longer: 500ms, 2s",
    "origin": "SMS_MO, MMS_MT, …",
    "group": "general, mo, mt, pass",
}
#: Filters without a value.
FLAGS: Final = {
    "dead": "short for state:dead",
    "opt-outs": "N302, N304 and messages that mean stop",
    "undelivered": "whatever their state, not delivered",
}
ALL: Final = (*FILTERS, *FLAGS)
#: Filters for whoever sees one account alone, and nothing of our inside.
CUSTOMERS: Final = (
    "state", "code", "since", "until", "between", "number", "tracking-id", "mms-id", "email", "sub-id", "serial-number",
    "status", "attempts", "slower-than", "origin", "undelivered", "opt-outs",
)  # fmt: skip
#: Other names of filters: the history knows a number in whichever tag it stands.
ALIASES: Final = {"to": "number", "from": "number", "mobile": "number"}
#: Characters of a bar: far more than all filters have.
LENGTH_MAX: Final = 4000

_NUMBERS: Final = frozenset({"status", "attempts"})
_TIMES: Final = frozenset({"since", "until", "between"})
_QUOTED: Final = r'"(?:[^"\\]|\\[\s\S])*"'
_WORD: Final = re.compile(rf"(?:[\w-]+:{_QUOTED}|\S+)(?=\s|$)", re.ASCII)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_PLAIN: Final = re.compile(r'[^\s"\\]+')
_AGE: Final = re.compile(r"now|\d{1,9}(?:\.\d{1,3})?(?:ms|s|m|h|d|w)", re.ASCII)


class Word(NamedTuple):
    """Filter as it was typed.

    Attributes:
        name: a key of ``FILTERS`` or ``FLAGS``.
        value: empty for a flag.
    """

    name: str
    value: str = ""

    @property
    def text(self) -> str:
        """Return the filter as it is typed."""
        if self.name in FLAGS:
            return self.name
        if _PLAIN.fullmatch(self.value):
            return f"{self.name}:{self.value}"
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"')
        return f'{self.name}:"{escaped}"'


@dataclass(frozen=True, slots=True)
class Bar:
    """Filter bar that was understood.

    Attributes:
        words: filters in the order in which they were typed.
        query: what they ask for, times resolved.
    """

    words: tuple[Word, ...]
    query: Query

    @property
    def text(self) -> str:
        """Return the words as they are typed."""
        return text_of(self.words)

    @property
    def chosen(self) -> list[tuple[str, str]]:
        """Each filter as it is typed, and the text without it."""
        return [(word.text, text_of(other for other in self.words if other != word)) for word in self.words]

    def put(self, name: str, value: str = "") -> str:
        """Return the text with a filter more, in place of those that it excludes."""
        others = _TIMES - ({"until"} if name == "since" else {"since"} if name == "until" else set())
        gone = others if name in _TIMES else {"state", "dead"} if name in {"state", "dead"} else {name}
        return text_of([*(word for word in self.words if word.name not in gone), Word(name, value)])

    def timed(self, times: Mapping[str, str]) -> str:
        """Return the text with these times in place of its own."""
        words = [word for word in self.words if word.name not in _TIMES]
        return text_of([*words, *(Word(name, value) for name, value in times.items())])

    def narrowed(self, since_ms: int, until_ms: int) -> str:
        """Return the text with these times in place of its own."""
        return self.timed({"since": iso(since_ms) or "", "until": iso(until_ms) or ""})

    def fixed(self, now_ms: int) -> str:
        """Return the text with its times resolved, and an end: what it means now, it means later."""
        times = {} if self.query.since_ms is None else {"since": iso(self.query.since_ms) or ""}
        until_ms = now_ms if self.query.until_ms is None else min(now_ms, self.query.until_ms)
        if self.query.since_ms is not None and until_ms <= self.query.since_ms:
            until_ms = self.query.until_ms or self.query.since_ms + 1
        return self.timed(times | {"until": iso(until_ms) or ""})

    def command(self, name: str = "list") -> str:
        """Return the command line that chooses the same; ages stay as they were typed, other times are in UTC."""
        arguments = ["postbacks", name]
        times = {"since": self.query.since_ms, "until": self.query.until_ms}
        typed = {word.name: word.value for word in self.words}
        if "between" in typed:
            typed |= {"since": "", "until": ""}
        for word in self.words:
            if word.name in FLAGS:
                arguments.append(f"--{word.name}")
            elif word.name not in _TIMES:
                arguments.append(f"--{word.name}={word.value}")
        for flag, ms in times.items():
            if ms is not None:
                is_age = _AGE.fullmatch(typed[flag].strip()) is not None
                arguments.append(f"--{flag}={typed[flag].strip() if is_age else iso(ms)}")
        return shlex.join(_split(arguments))


def _split(arguments: Iterable[str]) -> list[str]:
    """Write ``--flag=value`` as two words, as people do, but where the value would be taken for an option."""
    words: list[str] = []
    for argument in arguments:
        flag, is_option, value = argument.partition("=")
        if flag.startswith("--") and is_option and not value.startswith("-"):
            words += [flag, value]
        else:
            words.append(argument)
    return words


def text_of(words: Iterable[Word]) -> str:
    """Return filters as they are typed."""
    return " ".join(word.text for word in words)


def bar_of(query: Query) -> str:
    """Return the filters of a query as they are typed, times in UTC."""
    given = filters_of(query)
    given |= {name: iso(given[name]) for name in ("since_ms", "until_ms") if name in given}
    if query.slower_than_ms is not None:
        given["slower_than_ms"] = f"{query.slower_than_ms}ms"
    named = ((name.removesuffix("_ms").replace("_", "-"), value) for name, value in given.items())
    return text_of(Word(name, "" if name in FLAGS else str(value)) for name, value in named)


def parse(
    text: str, *, now_ms: Callable[[], int], zone: tzinfo | None = None, names: Collection[str] = ALL
) -> Bar:
    """Parse the bar.

    Args:
        text: what was typed.
        now_ms: asked for the present time where a filter depends on it.
        zone: of times that name none; None for the machine's.
        names: filters and flags that may be given.

    Raises:
        InvalidQuery: names the word that cannot be, and what there is.
    """
    words = _words(text, names)
    values = {word.name: word.value for word in words}
    if "dead" in values and values.get("state", "dead") != "dead":
        raise InvalidQuery(
            f"dead is short for state:dead, and state:{values['state']} is another: leave one out."
        )
    since, until = values.get("since"), values.get("until")
    if "between" in values:
        if since is not None or until is not None:
            raise InvalidQuery("between is since and until at once: give it alone.")
        since, until = _between(values["between"])
    times = window(since, until, now_ms, zone)
    query = Query(
        **_fields(values),
        state="dead" if "dead" in values else values.get("state"),
        since_ms=times.since_ms,
        until_ms=times.until_ms,
    )
    check(query)
    return Bar(words, query)


def _fields(values: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of ``Query`` that filters give, but for its state and its times."""
    fields: dict[str, Any] = {}
    for name, value in values.items():
        field = name.replace("-", "_")
        if name in _NUMBERS:
            fields[field] = _number(name, value)
        elif name == "slower-than":
            fields["slower_than_ms"] = duration_ms(value)
        elif name in FLAGS:
            fields[field] = True
        elif name not in _TIMES:
            fields[field] = value
    fields.pop("dead", None)
    fields.pop("state", None)
    return fields


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise InvalidQuery(f"{quoted(value)} is no number: {name} is {FILTERS[name]}.")
    return int(value)


def _between(value: str) -> tuple[str, str]:
    """Cut two times apart; a date and its time of day may have a space between them."""
    parts = value.split()
    if len(parts) % 2 or not parts:
        raise InvalidQuery(f'{quoted(value)} is not two times: between:"14:00 15:00".')
    middle = len(parts) // 2
    return " ".join(parts[:middle]), " ".join(parts[middle:])


def _words(text: str, names: Collection[str]) -> tuple[Word, ...]:
    """Cut a bar into its filters."""
    if len(text) > LENGTH_MAX:
        raise InvalidQuery(f"The filter has more than {LENGTH_MAX:,} characters: give fewer words.")
    words: dict[str, Word] = {}
    for match in _WORD.finditer(text):
        word = _word(match.group(), names)
        if word.name in words:
            raise InvalidQuery(f"{word.name} is given twice: one value each.")
        words[word.name] = word
    return tuple(words.values())


def _word(typed: str, names: Collection[str]) -> Word:
    name, colon, value = typed.partition(":")
    name = ALIASES.get(name.lower(), name.lower())
    if name in FLAGS and name in names and not value:
        return Word(name)
    if not colon or name not in FILTERS or name not in names:
        raise InvalidQuery(_no_filter(typed, name, names))
    if value.startswith('"'):
        if len(value) < 2 or not re.fullmatch(_QUOTED, value, re.ASCII):
            raise InvalidQuery(f"{quoted(typed)} has a quote that does not end, or something behind it.")
        value = _ESCAPE.sub(r"\1", value[1:-1])
    if not value.strip():
        raise InvalidQuery(f"{name} has no value: it is {FILTERS[name]}.")
    return Word(name, value)


def _no_filter(typed: str, name: str, names: Collection[str]) -> str:
    """Say of a word that it is no filter, and what it may be meant for."""
    digits = sum(c.isdigit() for c in typed)
    if digits >= 7 and not typed.strip("+0123456789-().") and not typed.startswith("-"):
        return f"{quoted(typed)} is no filter: a phone number is number:{typed}."
    if typed.startswith("--") and typed[2:].partition("=")[0] in names:
        return f"{quoted(typed)} is an option of the command line; here it is {typed[2:].replace('=', ':')}."
    matches = get_close_matches(name, [*names, *ALIASES], n=1)
    nearest = f" Did you mean {matches[0]}?" if matches else ""
    known = f"Known: {', '.join(f'{known}:' if known in FILTERS else known for known in names)}."
    hint = (
        "" if ":" in typed or matches else ' A value with spaces stands in quotes: number:"+1 555 231 0137".'
    )
    return f"There is no filter {quoted(typed)}.{nearest}{hint} {known}"


def id_of(text: str) -> str:
    """Return the bar as a postback's id where it may be nothing else: one word that looks like one; else empty."""
    word = text.strip()
    is_one = ":" not in word and word.lower() not in FLAGS and is_id(word)
    return word if is_one and len(word) >= 16 and any(c.isdigit() for c in word) and "-" in word[1:-1] else ""


def guesses(text: str) -> list[str]:
    """Return bars that somebody may mean who typed a value without its name, beside other filters or alone.

    Args:
        text: a number, an address, a TRACKINGID, an account's name, as it stands in a customer's mail: ``acme dead``.
    """
    if len(text) > LENGTH_MAX // 2:
        return []
    words = [match.group() for match in _WORD.finditer(text)]
    others = [word for word in words if ":" in word or word.lower() in FLAGS]
    given = {ALIASES.get(name, name) for name in (word.partition(":")[0].lower() for word in others)}
    if not given <= set(ALL):
        return []
    value = " ".join(word for word in words if word not in others)
    names = []
    if not value.strip("+0123456789-()./ ") and sum(c.isdigit() for c in value) >= MIN_DIGITS:
        names.append("number")
    if "@" in value:
        names.append("email")
    if not any(c.isspace() for c in value):
        names += ["tracking-id", "mms-id"]
        if value.replace("-", "").replace("_", "").replace(".", "").isalnum() and not value.isdigit():
            names.insert(0, "account")
    return [" ".join((Word(name, value).text, *others)) for name in names if value and name not in given]


# -- completion ------------------------------------------------------------------------------------


def completions(
    text: str, values: Mapping[str, Iterable[str]], most: int = 30, names: Collection[str] = ALL
) -> list[str]:
    """Return whole bars that the last word of a bar may become.

    Args:
        text: as far as it is typed.
        values: filter -> values that the history or the account store knows, beside those of the catalogue.
        most: bars at most.
        names: filters and flags that may be given.
    """
    before, typed = _last(text)
    name, colon, value = typed.partition(":")
    name = ALIASES.get(name.lower(), name.lower())
    if not colon:
        given = {word.partition(":")[0] for word in before.split()}
        words = [f"{known}:" if known in FILTERS else known for known in names]
        offered = [known for known in words if known.startswith(name) and known.rstrip(":") not in given]
    elif name not in names:
        offered = []
    else:
        known_values = [*values.get(name, ()), *_KNOWN.get(name, ())]
        value = value.removeprefix('"').lower()
        fitting = [known for known in dict.fromkeys(known_values) if known.lower().startswith(value)]
        offered = [Word(name, known).text for known in fitting]
    return [f"{before}{word}" for word in offered[:most]]


def asks_for(text: str) -> tuple[str, str]:
    """Return the filter whose value is typed just now, and its begin; both empty where a name is typed."""
    name, colon, value = _last(text)[1].partition(":")
    return (ALIASES.get(name.lower(), name.lower()), value.removeprefix('"')) if colon else ("", "")


def _last(text: str) -> tuple[str, str]:
    """Cut the last word off."""
    text = text[:LENGTH_MAX]
    cut = 0 if not text or text[-1].isspace() else len(text.split()[-1])
    return (text[: len(text) - cut], text[len(text) - cut :]) if cut else (text, "")


_KNOWN: Final[Mapping[str, Iterable[str]]] = {
    "state": STATES,
    "outcome": tuple(OUTCOMES),
    "origin": tuple(ORIGINS),
    "group": tuple(dict.fromkeys(ORIGINS.values())),
    "code": tuple(sorted({code for _, code in EVENTS})),
    "since": ("15m", "1h", "2h", "1d", "7d", "today", "yesterday"),
    "until": ("1h", "today", "yesterday"),
    "slower-than": ("500ms", "1s", "2s", "10s"),
    "attempts": ("0", "1", "2"),
    "status": ("200", "400", "401", "403", "404", "429", "500", "502", "503", "504"),
}
