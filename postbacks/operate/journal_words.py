"""Words of the journal's entries: what else is known of an action, and how a field of an account has changed."""

from __future__ import annotations

from typing import Any

from postbacks.ledger.record import iso


def details_words(details: dict[str, Any]) -> str:
    """Return details in words: ``account acme, rate 20/s -> 50/s``."""
    words = []
    for name, value in details.items():
        if name == "changed" and isinstance(value, dict):
            words += _changes_words(value, of_new=details.get("new") is True)
        elif value is True:
            words.append(name)
        elif isinstance(value, dict):
            words.append(f"{name} ({details_words(value)})")
        elif name.endswith("_ms") and type(value) is int:
            words.append(f"{name.removesuffix('_ms')} {iso(value)}")
        elif value is not None and value is not False:
            words.append(f"{name} {_word(value)}")
    return ", ".join(words)


def _changes_words(changes: dict[str, Any], *, of_new: bool) -> list[str]:
    words = []
    for name, values in changes.items():
        if not isinstance(values, list):  # how many there was no room for
            words.append(f"{name} {_word(values)}")
        elif of_new:
            words.append(f"{name} {_word(values[-1])}")
        else:
            words.append(change_words(name, *values))
    return words


def change_words(name: str, old: Any, new: Any) -> str:
    """Return the change of a field in words."""
    return f"{name} {_word(old)} -> {_word(new)}"


def _word(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
