"""Charts as SVG, made here: a browser gets shapes with classes, and no script."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log10
from typing import Final, NamedTuple

from markupsafe import Markup

from postbacks.ledger.phases import WORDS, Phases

#: Height of a chart in its own units; the style sheet scales it.
_HEIGHT: Final = 60
_BAR: Final = 8
_GAP: Final = 2
#: Size of the bar of an attempt's phases, and the width of one that took no time.
_COURSE_WIDE: Final = 300
_COURSE_HIGH: Final = 8
_COURSE_LEAST: Final = 2
#: Bars for which there is room at least: few would be as wide as a page.
_FEWEST: Final = 20
#: Numbers at which an axis ends, in powers of ten: each has a half that is as easily read.
_ENDS: Final = (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10)


class Bar(NamedTuple):
    """Bar of a chart.

    Attributes:
        title: what is said of it on hover.
        parts: class of the style sheet -> how high, from the bottom.
        href: where a click leads; empty for nowhere.
    """

    title: str
    parts: dict[str, int]
    href: str = ""


def bars(
    label: str,
    columns: Sequence[Bar],
    *,
    is_strip: bool = False,
    fewest: int = _FEWEST,
    along: Sequence[str] = (),
) -> Markup:
    """Draw bars beside each other, each of parts that stand on each other.

    Args:
        label: what the chart shows, for whoever cannot see it.
        columns: from the left.
        is_strip: True for a flat one, whose bars are all of one height.
        fewest: bars that there is room for at least; 0 where labels stand below them.
        along: labels below, one for each bar, or some from the first to the last; with them it has an axis of numbers as well.
    """
    most = max((sum(bar.parts.values()) for bar in columns), default=0) or 1
    top = _end_of(most) if along else most
    width = max(fewest, len(columns)) * (_BAR + _GAP)
    shapes = Markup("").join(
        _bar(bar, place * (_BAR + _GAP), top, is_stop=not is_strip) for place, bar in enumerate(columns)
    )
    drawn = Markup(
        '<svg class="bars{}" role="{}" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>'
    ).format(
        " strip" if is_strip else "",
        "group" if any(bar.href for bar in columns) else "img",
        label,
        width,
        _HEIGHT,
        shapes,
    )
    return _with_axes(drawn, top, along, is_each=len(along) == len(columns)) if along else drawn


def _end_of(most: int) -> int:
    """Return the number at which the axis of a chart ends, by that of its highest bar."""
    power: int = 10 ** int(log10(most))
    return next(ceil(end * power) for end in _ENDS if end * power >= most)


def _with_axes(drawn: Markup, top: int, along: Sequence[str], *, is_each: bool) -> Markup:
    half = f"{top // 2:,}" if top % 2 == 0 else ""
    tall = Markup("").join(Markup("<span>{}</span>").format(words) for words in (f"{top:,}", half, "0"))
    below = Markup("").join(Markup("<span>{}</span>").format(words) for words in along)
    return Markup(
        '<div class="plot"><p class="tall" aria-hidden="true">{}</p>{}<p class="along{}" aria-hidden="true">{}</p></div>'
    ).format(tall, drawn, " each" if is_each else "", below)


def _bar(bar: Bar, x: int, top: int, *, is_stop: bool) -> Markup:
    shapes, y = [], float(_HEIGHT)
    for mark, amount in bar.parts.items():
        if amount:
            high = max(1.0, amount / top * _HEIGHT)
            y -= high
            shapes.append(
                Markup('<rect class="{}" x="{}" y="{:.1f}" width="{}" height="{:.1f}"/>').format(
                    mark, x, max(0.0, y), _BAR, high
                )
            )
    title = Markup("<title>{}</title>").format(bar.title)
    room = Markup('<rect class="room" x="{}" y="0" width="{}" height="{}"/>').format(x, _BAR, _HEIGHT)
    group = Markup("<g>{}{}{}</g>").format(title, room, Markup("").join(shapes))
    if not bar.href:
        return group
    # A strip of a hundred POSTs is no hundred stops of the tabulator.
    stop = Markup("") if is_stop else Markup(' tabindex="-1"')
    return Markup('<a href="{}" aria-label="{}"{}>{}</a>').format(bar.href, bar.title, stop, group)


def course(phases: Phases, longest_ms: int) -> Markup:
    """Draw the phases of an attempt after each other. The same stands beside it in words.

    Args:
        phases: of the attempt.
        longest_ms: duration that the whole width stands for: the attempts of a postback are drawn to one scale.
    """
    shapes, x = [], 0.0
    for name, ms in phases.gone_through.items():
        wide = max(_COURSE_LEAST, ms / max(1, longest_ms) * (_COURSE_WIDE - 5 * _COURSE_LEAST))
        shapes.append(
            Markup(
                '<rect class="{}" x="{:.1f}" width="{:.1f}" height="{}"><title>{} {:,} ms</title></rect>'
            ).format(name.removesuffix("_ms"), x, wide - 1, _COURSE_HIGH, WORDS[name], ms)
        )
        x += wide
    return Markup(
        '<svg class="course" aria-hidden="true" viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>'
    ).format(_COURSE_WIDE, _COURSE_HIGH, Markup("").join(shapes))
