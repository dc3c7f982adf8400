"""Pages of whoever changes postbacks: CONTRIBUTING.md, docs/losses.md."""

from __future__ import annotations

import shlex

from block_checks import Check, elsewhere, makes
from command_blocks import Block, Machine

from crash.__main__ import make_arguments


def is_crash_run(machine: Machine, block: Block) -> None:
    """Find the target, or the module; its options and their values exist."""
    del machine
    for line in block.text.replace("\\\n", "").splitlines():
        words = shlex.split(line, comments=True)
        match words:
            case ["make", "crash", *assignments]:
                given = dict(assignment.partition("=")[::2] for assignment in assignments)
                assert given.keys() <= {"ARGS", "SENTINEL_ARGS"}
                make_arguments().parse_args(shlex.split(given.get("ARGS", "")))
            case ["python", "-m", "crash", *options]:
                make_arguments().parse_args(options)


CHECKS: dict[str, dict[str, Check]] = {
    "CONTRIBUTING.md": {
        "make test": makes,
        'class SubscriptionPaused(Event, origin="SUB", code="N305", meaning="a phone number paused its subscription"):': elsewhere(
            "it would stay in the catalogue",
            "tests/house/test_contributing.py::test_a_code_that_is_added_as_the_page_says_travels",
        ),
    },
    "docs/losses.md": {
        "make crash": is_crash_run,
        "python -m crash --world history --database sqlite --seed 11 --seconds 30 --postbacks 4000 --pairs 1 \\": is_crash_run,
    },
}
