"""Draw what `make demo` prints into a picture for the README: the first and the last rows of its table, as SVG.

The demo runs as ever. Its picture fetches nothing: fonts are those of whoever looks at it.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

COLUMNS = 98
#: Rows of the table that are shown: each kind of receiver is among them.
FIRST, LAST = 8, 3
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', 'DejaVu Sans Mono', monospace"
#: rich's drawing without the fonts that it would fetch.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "Fira Code, monospace", FONTS
)
#: Legible on a light page as on a dark one: the picture has its own dark window.
THEME = TerminalTheme(
    (22, 27, 34),
    (230, 237, 243),
    [
        (110, 118, 129), (255, 123, 114), (86, 211, 100), (227, 179, 65),
        (121, 192, 255), (210, 168, 255), (86, 212, 221), (230, 237, 243),
    ],
)  # fmt: skip


def run_demo() -> tuple[str, str]:
    """Run the demo as in a terminal with colours; return its table and its last sentence."""
    env = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)}
    done = subprocess.run(
        [sys.executable, "-c", "from postbacks.cli import main; main(prog_name='postbacks')", "demo"],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout, done.stderr.splitlines()[-1]


def chosen(table: str) -> list[str]:
    """Return the head of the table, its first and last rows, and between them how many are left out."""
    head, rule, *rows = table.rstrip("\n").splitlines()
    left_out = len(rows) - FIRST - LAST
    return [head, rule, *rows[:FIRST], f"\x1b[2m   {left_out} more\x1b[0m", *rows[-LAST:]]


def draw(lines: list[str]) -> str:
    """Draw lines of a terminal, with what colours them, as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=True)
    return console.export_svg(title="postbacks", theme=THEME, code_format=FORMAT, unique_id="demo")


def main() -> None:
    """Run the demo, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    path = parser.parse_args().path
    table, sentence = run_demo()
    path.write_text(draw(["$ make demo", "", *chosen(table), "", sentence]))


if __name__ == "__main__":
    main()
