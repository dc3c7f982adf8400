"""The selectors of PromQL expressions, as far as ours are written: what a query asks for, to compare with what there is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_SELECTOR = re.compile(r"\b(postbacks_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
#: Labels that Prometheus adds to each target's series.
TARGET_LABELS = frozenset({"instance", "job"})


class Selector(NamedTuple):
    """Selector of a series, or of several, in an expression.

    Attributes:
        sample: name of the series, as a page has it.
        matchers: label, operator and value.
    """

    sample: str
    matchers: tuple[tuple[str, str, str], ...]

    @property
    def metric(self) -> str:
        """Name of the metric that the series belong to: a histogram has three kinds of them."""
        return re.sub(r"_seconds_(?:bucket|sum|count)$", "_seconds", self.sample)

    def selects(self, sample: str, labels: Mapping[str, str]) -> bool:
        """Tell whether it selects this series."""
        return sample == self.sample and all(
            _holds(labels.get(label), operator, value) for label, operator, value in self.matchers
        )


def _holds(actual: str | None, operator: str, value: str) -> bool:
    if actual is None:
        return False  # PromQL would take it for empty; ours ask for labels that there are
    is_so = actual == value if operator in {"=", "!="} else re.fullmatch(value, actual) is not None
    return is_so != operator.startswith("!")


def selectors(expression: str) -> list[Selector]:
    """Find the selectors of an expression."""
    return [
        Selector(name, tuple(_MATCHER.findall(matchers))) for name, matchers in _SELECTOR.findall(expression)
    ]


def grouping_labels(expression: str) -> set[str]:
    """Find the labels that an expression groups or joins by."""
    return {
        label.strip()
        for labels in _GROUPING.findall(expression)
        for label in labels.split(",")
        if label.strip()
    }
