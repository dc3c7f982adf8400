"""Command line of a run: the options that every world has, the columns one after the other, the printed table."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crash.comparison import FORGOTTEN, NO_ANSWER, NO_REASON, SHOWN, UNKNOWN
from crash.history_comparison import HistoryComparison
from crash.plan import HISTORY_KINDS, KINDS
from crash.run import Column, MakeWorld, run
from crash.world import SETTINGS, Load


def make_parser(prog: str, description: str | None, default: Load) -> argparse.ArgumentParser:
    """Make a parser of the options that every world has."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument(
        "--seed", type=int, help="repeats load, faults and pauses; a random one where not given"
    )
    parser.add_argument(
        "--seconds", type=float, default=default.seconds, help="of load, a column (default: %(default)g)"
    )
    parser.add_argument(
        "--postbacks", type=int, default=default.postbacks, help="a column (default: %(default)d)"
    )
    parser.add_argument(
        "--drain", type=float, default=default.drain_s, help="seconds to drain at most (default: %(default)g)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole table there, with all ids")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep logs, notes and the broker's data there"
    )
    return parser


def run_columns(args: argparse.Namespace, worlds: Mapping[str, MakeWorld]) -> int:
    """Run one column a world, print them, and return the exit code: 0 if the promise holds in all of them."""
    seed = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    load = Load(seed, args.seconds, args.postbacks, args.drain)
    columns = []
    for name, make_world in worlds.items():
        print(f"{name}: {load.postbacks:,} postbacks in {load.seconds:g} s, seed {seed} …", flush=True)
        with _folder(args.keep / name if args.keep else None) as folder:
            columns.append(run(name, load, make_world, folder))
    print()
    _print(columns)
    if args.json:
        args.json.write_text(json.dumps(_as_json(load, columns), indent=1), encoding="utf-8")
    broken = [f"{column.name}: {sentence}" for column in columns for sentence in column.violations()]
    print()
    for line in broken:
        print(f"BROKEN {line}"[: 120 + 40 * SHOWN])
    print(f"The promise {'does NOT hold' if broken else 'holds'}. Repeat with --seed {seed}.")
    return 1 if broken else 0


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="postbacks-crash-") as name:
            yield Path(name)
    else:
        # A new one: the notes of another run would count as this one's.
        keep.mkdir(parents=True)
        yield keep


def _print(columns: Sequence[Column]) -> None:
    rows = [("", [column.name for column in columns]), *_rows(columns)]
    width = max(24, 2 + max(len(cell) for _, cells in rows for cell in cells))
    for label, cells in rows:
        print(f"{label:44}" + "".join(f"{cell:>{width}}" for cell in cells))


def _row(label: str, values: Sequence[object]) -> tuple[str, list[str]]:
    return label, [f"{value:,}" if isinstance(value, int) else str(value) for value in values]


def _rows(columns: Sequence[Column]) -> list[tuple[str, list[str]]]:
    compared = [column.comparison for column in columns]

    elected = any(effect.elected_s is not None for column in columns for effect in column.effects)
    done = dict.fromkeys(effect.kind for column in columns for effect in column.effects)
    planned = KINDS | HISTORY_KINDS
    kinds = [*(kind for kind in planned if kind in done), *(kind for kind in done if kind not in planned)]
    return [
        _row("accepted", [lists.accepted for lists in compared]),
        _row("  calls that raised", [column.raised for column in columns]),
        _row("delivered (200 at the receiver)", [lists.delivered for lists in compared]),
        _row("dead, with their story", [lists.dead for lists in compared]),
        _row("skipped, their origin was off", [lists.skipped for lists in compared]),
        _row("ended for no reason that was made", [len(lists.unexplained) for lists in compared]),
        _row("LOST", [_lost(column) for column in columns]),
        _row(
            columns[0].unsynced_label,
            [len(column.comparison.unsynced) if column.may_lose else "-" for column in columns],
        ),
        _row("stuck", [len(lists.stuck) for lists in compared]),
        _row("in no place or in two", [len(lists.misplaced) for lists in compared]),
        _row("counters off", [len(lists.leaks) for lists in compared]),
        _row("delivered, unknown to the ledger", [len(lists.unknown_to_ledger) for lists in compared]),
        _row("POSTs astray (host, key, signature, time)", [_count(lists.astray) for lists in compared]),
        _row("set aside as poison", [len(lists.poison) for lists in compared]),
        _row("sent twice, same id", [len(set().union(*lists.twice.values())) for lists in compared]),
        *(
            _row(f"  {reason}", [len(lists.twice.get(reason, [])) for lists in compared])
            for reason in (UNKNOWN, NO_ANSWER, FORGOTTEN, NO_REASON)
        ),
        _row("arrived though not accepted", [lists.arrived_unaccepted for lists in compared]),
        *(_history_rows(columns) if any(column.history for column in columns) else ()),
        _row("processes that ended by themselves", [len(column.ended_themselves) for column in columns]),
        _row("POSTs", [column.posts for column in columns]),
        _row("load + draining", [f"{column.took_s[0]:.0f} + {column.took_s[1]:.0f} s" for column in columns]),
        _row("changes of accounts", [column.changed for column in columns]),
        _row("kills", [column.kills for column in columns]),
        _row(
            "then: new primary, next call accepted, next POST after"
            if elected
            else "then: next POST after (p50, max)",
            ["" for _ in columns],
        ),
        *(
            _row(f"  {kind}", [(_election if elected else _silence)(column, kind) for column in columns])
            for kind in kinds
        ),
    ]


def _history_rows(columns: Sequence[Column]) -> list[tuple[str, list[str]]]:
    """Return the rows of those columns that have a history."""

    def of_each(count: Callable[[HistoryComparison], int]) -> list[object]:
        return ["-" if column.history is None else count(column.history) for column in columns]

    def of_jobs(count: Callable[[HistoryComparison], int | None]) -> list[object]:
        of_column = (column.history for column in columns)
        return [
            count(history) if history is not None and history.resent is not None else "-"
            for history in of_column
        ]

    return [
        _row("history: rows", of_each(lambda history: history.rows)),
        _row("history: missing", of_each(lambda history: len(history.missing))),
        _row("history: wrong", of_each(lambda history: len(history.wrong))),
        _row("history: double", of_each(lambda history: len(history.double))),
        _row("history: counts off", of_each(lambda history: len(history.miscounted))),
        _row("sent again by jobs", of_jobs(lambda history: history.resent)),
        _row("  with a POST open at a death", of_jobs(lambda history: history.unnoted)),
    ]


def _count(ids: Mapping[str, list[str]]) -> int:
    return sum(map(len, ids.values()))


def _lost(column: Column) -> int:
    return len(column.comparison.lost) + (0 if column.may_lose else len(column.comparison.unsynced))


def _silence(column: Column, kind: str) -> str:
    times = column.silences().get(kind)
    if not times:
        return f"{column.done[kind]}"
    return f"{column.done[kind]} ({statistics.median(times):.2f} s, {max(times):.2f} s)"


def _election(column: Column, kind: str) -> str:
    return "; ".join(
        ", ".join("-" if seconds is None else f"{seconds:.1f} s" for seconds in effect[1:])
        for effect in column.effects
        if effect.kind == kind
    )


def _as_json(load: Load, columns: Sequence[Column]) -> dict[str, Any]:
    return {
        "seed": load.seed,
        "seconds": load.seconds,
        "postbacks": load.postbacks,
        "settings": SETTINGS,
        "holds": not any(column.violations() for column in columns),
        "columns": {
            column.name: {
                **asdict(column.comparison),
                "twice": {reason: len(ids) for reason, ids in column.comparison.twice.items()},
                "twice_without_reason": column.comparison.twice.get(NO_REASON, []),
                "history": column.history and asdict(column.history),
                "raised": column.raised,
                "changed": column.changed,
                "ended_themselves": column.ended_themselves,
                "posts": column.posts,
                "took_s": column.took_s,
                "kills": column.kills,
                "faults": column.done,
                "silences_s": column.silences(),
                "left": column.left,
                "broken": column.violations(),
            }
            for column in columns
        },
    }
