"""Base of all commands: examples in their help, errors as one sentence, and printing."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

from postbacks.printable import json_text, printable, printable_lines

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

#: The option ``--json``, the same for all commands that print data.
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")

#: The option ``--why``, the same for all commands that write to the journal.
why_option = click.option("--why", default="", metavar="TEXT", help="The reason, for the journal.")

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
#: Accounts that are shown with their counts before something is done to them.
_ACCOUNTS_SHOWN = 20

#: Packages of the extra ``web``.
OF_WEB = frozenset({"starlette", "jinja2", "uvicorn", "itsdangerous", "markupsafe"})
_STATE_STYLES = {
    "delivered": "green",
    "dead": "red",
    "parked": "yellow",
    "skipped": "yellow",
    "cancelled": "yellow",
}


# -- commands --------------------------------------------------------------------------------------


class _WithExamples(click.Command):
    """A command whose help ends with examples that can be typed."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples without wrapping them, so that they can be copied."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Example" if len(self.examples) == 1 else "Examples"):
            for line in self.examples:
                formatter.write(f"  {line}\n")


class Option(click.Option):
    """An option that stands under a heading of its own in the help."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class Command(_WithExamples):
    """A command without commands below it."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings; those without one stand last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and not isinstance(param, click.Argument):
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class Group(_WithExamples, click.Group):
    """A command with others below it, in the order in which they were added."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of the help."""
        del ctx
        return list(self.commands)


class _Commands(dict[str, click.Command]):
    """Commands by name, each imported when it is looked up: importing all takes longer than a health check runs."""

    def __init__(self, locations: Mapping[str, str]) -> None:
        super().__init__(dict.fromkeys(locations, click.Command(None)))
        self._locations = dict(locations)

    def __getitem__(self, name: str) -> click.Command:
        location = self._locations.pop(name, "")
        if location:
            module, _, attribute = location.partition(":")
            self[name] = getattr(import_module(f"postbacks.cli.{module}"), attribute)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a command by its name, as ``click`` looks it up."""
        if name not in self:
            return default
        return self[name]

    def values(self) -> Any:
        """Return all commands."""
        return [self[name] for name in self]

    def items(self) -> Any:
        """Return all commands with their names."""
        return [(name, self[name]) for name in self]


class Main(Group):
    """The command ``postbacks``, which alone turns errors into a sentence and an exit code.

    Attributes:
        is_program: True if it runs as a program; False if a test calls it inside of its own process.
    """

    is_program = False

    def __init__(self, *args: Any, locations: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands = _Commands(locations)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a program."""
        self.is_program = True
        return super().__call__(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click itself shows ``ClickException`` and is quiet about a closed pipe."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a character that a terminal cannot show is no reason to fail
                stream.reconfigure(errors="replace")
        _reset_only_logged()
        try:
            try:
                return super().invoke(ctx)
            finally:
                _say_only_logged()
        except click.ClickException as error:
            # The message may quote an argument, or a receiver's answer.
            error.message = printable_lines(error.message)  # type: ignore[misc]  # click declares it Final
            raise
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        except Exception as error:  # noqa: BLE001 - users get a sentence for any error
            raise explained(error) from None


def _reset_only_logged() -> None:
    """Forget what the program that runs this command has written to the journal itself."""
    journal = sys.modules.get("postbacks.operate.journal")
    if journal is not None:
        journal.only_logged.set(False)


def _say_only_logged() -> None:
    """Say where an entry of the journal came to the log alone; a command that wrote none has not loaded the journal."""
    journal = sys.modules.get("postbacks.operate.journal")
    if journal is not None and journal.only_logged.get():
        say("(journal: written to the workers' log alone, as no recorder works)")
        journal.only_logged.set(False)


class _WrongUse(click.ClickException):
    """Raised for an error that ends the command with exit code 2."""

    exit_code = 2


def explained(error: Exception) -> click.ClickException:
    """Turn an error into its sentence and its exit code."""
    from postbacks.errors import DeliveryError, PostbacksError, UnknownIncident, UnknownJob, UnknownPostback

    if isinstance(error, PostbacksError):
        # 1 for a state of things; 2 for what has to be written or set up in another way.
        is_state = (
            isinstance(error, (DeliveryError, UnknownPostback, UnknownJob, UnknownIncident))
            or type(error) is PostbacksError
        )
        sentence = printable_lines(str(error))
        return click.ClickException(sentence) if is_state else _WrongUse(sentence)
    if isinstance(error, TimeoutError) and str(error):
        return click.ClickException(printable_lines(str(error)))
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return click.ClickException(printable(f"{name}{error.strerror}."))
    if isinstance(error, ModuleNotFoundError) and error.name == "sqlalchemy":
        from postbacks.history.status import MISSING

        return _WrongUse(MISSING)
    if isinstance(error, ModuleNotFoundError) and error.name in OF_WEB:
        return _WrongUse("The dashboard's packages are not installed: pip install 'postbacks[web]'.")
    if isinstance(error, UnicodeEncodeError) and "\ud800" <= (half := error.object[error.start]) <= "\udfff":
        # Not quoted: it may be a password.
        return _WrongUse(f"A value has half a character in it (U+{ord(half):04X}): it is no Unicode text.")
    if os.environ.get("POSTBACKS_DEBUG"):
        raise error
    return click.ClickException(
        printable(
            f"This should not happen ({type(error).__name__}: {error}); POSTBACKS_DEBUG=1 shows where it does."
        )
    )


def runs_as_program() -> bool:
    """Tell whether the command runs as a program, and not inside of a test's process."""
    main = click.get_current_context().find_root().command
    return isinstance(main, Main) and main.is_program


def exit_at_once(code: int) -> NoReturn:
    """End the program without the interpreter's clean-up, which takes a quarter as long as a health check."""
    if runs_as_program():
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # the reader of a pipe has gone
                stream.flush()
        os._exit(code)
    sys.exit(code)


def stop_signals(handler: Callable[[int, FrameType | None], object] = signal.default_int_handler) -> None:
    """Let SIGINT, SIGTERM and SIGHUP end a foreground command in order, as Ctrl-C does.

    SIGINT is set as well, as a shell starts its background jobs with it ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


@contextmanager
def stopping_afterwards() -> Iterator[None]:
    """Let the first signal to stop wait until a step has ended; a second one breaks it off.

    SQLAlchemy prints a traceback where it is interrupted as it closes a connection, and Python drops an interrupt that
    comes in a destructor or in a callback of SQLite.
    """
    noted: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        noted.append(number)
        stop_signals()

    stop_signals(note)
    try:
        yield
    finally:
        stop_signals()
        if noted:
            raise KeyboardInterrupt


def confirm(question: str) -> None:
    """Ask before a step that cannot be taken back; return only after a yes.

    Raises:
        click.UsageError: there is no terminal to ask at.
        click.Abort: the answer is no.
    """
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask at: say --yes.")
    click.confirm(printable(question), abort=True, err=True)


def age(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Parse an age, a number and s, m, h or d; return seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,6})([smhd])", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no length of time: 90s, 30m, 2h or 1d.", ctx, param)
    return float(match[1]) * _UNITS_S[match[2]]


def seconds(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Check a number of seconds: ``nan``, which would pass any range of click's, is refused."""
    if value is not None and (not math.isfinite(value) or value < 0):
        raise click.BadParameter(f"{value:g} is no number of seconds, 0 or more.", ctx, param)
    return value


# -- printing --------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Print text for people, which is not data, to stderr."""
    click.echo(printable_lines(text), err=True)


def print_json(value: Any) -> None:
    """Print one JSON object on one line of stdout."""
    click.echo(json_text(value, ascii_only=not _takes_unicode()))


def _takes_unicode() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"


def check_id(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Check the form of an argument that is a postback's id."""
    from postbacks.names import is_id

    if value is not None and not is_id(value):
        raise click.BadParameter(
            f"{value[:60]!r} cannot be a postback's id: 1 to 255 printable ASCII characters, no spaces.",
            ctx,
            param,
        )
    return value


def show_counts(counts: Counter[str], *, as_json: bool) -> None:
    """Print each account's count for people, before they are asked to confirm."""
    if as_json or not counts:
        return
    for name, count in counts.most_common(_ACCOUNTS_SHOWN):
        say(f"  {printable(name):<24} {count:>9,}")
    if len(counts) > _ACCOUNTS_SHOWN:
        say(f"  and {len(counts) - _ACCOUNTS_SHOWN:,} accounts more")


def counted(count: int, noun: str = "postback", plural: str = "") -> str:
    """Return a number with its noun: "1 postback", "1,204 postbacks"."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def state_text(state: str, words: str = "") -> Text:
    """Return a state in its colour, or words that say more in its place."""
    from rich.text import Text

    return Text(printable(words or state), style=_STATE_STYLES.get(state, ""))


def make_table(*columns: str, right: Sequence[str] = (), whole: Sequence[str] = ()) -> Table:
    """Return a table with these headings.

    Args:
        columns: the headings.
        right: headings of columns of numbers, which stand to the right.
        whole: headings of columns that are copied (ids), and so never broken.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column, justify="right" if column in right else "left", no_wrap=column in whole, overflow="fold"
        )
    return table


def add_row(table: Table, *cells: object) -> None:
    """Add a row; make its strings, which may be strangers' text, printable."""
    from rich.text import Text

    table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in cells))


def stack_columns(table: Table, stacks: Sequence[Sequence[int]]) -> Table:
    """Return a table whose columns stand above each other, for a terminal that is too narrow for it.

    Args:
        table: each row of which becomes one of several lines.
        stacks: the columns that stand above each other, by their places in the table.
    """
    from rich.text import Text

    columns = [[column.header, *column.cells] for column in table.columns]
    rows = [
        [Text("\n").join(Text.assemble(row[place]) for place in places) for places in stacks]
        for row in zip(*columns, strict=True)
    ]
    stacked = make_table(*("" for _ in stacks))
    for column, header, places in zip(stacked.columns, rows[0], stacks, strict=True):
        column.header = header
        column.no_wrap = any(table.columns[place].no_wrap for place in places)
        column.justify = table.columns[places[0]].justify
    for cells in rows[1:]:
        stacked.add_row(*cells)
    return stacked


def is_cut(table: Table, width: int, *, is_any: bool = False) -> bool:
    """Tell whether a width is too small for the columns that must not be broken, or for any column."""
    from rich.cells import cell_len

    widths = (
        max(cell_len(line) for cell in (column.header, *column.cells) for line in str(cell).split("\n"))
        if column.no_wrap or is_any
        else 1
        for column in table.columns
    )
    return sum(widths) + 3 * (len(table.columns) - 1) > width


def print_table(table: Table) -> None:
    """Print a table to stdout: fitted into a terminal, or one line a row where stdout is none or would cut a figure or an id."""
    from rich.console import Console

    console = Console()
    if console.is_terminal and not is_cut(table, console.width):
        console.print(table)
        return
    for line in table_lines(table, console.width // 2):
        click.echo(line)


def table_lines(table: Table, width_max: int = 40) -> Iterator[str]:
    """Yield a table's rows, a line each; a cell wider than ``width_max`` widens its own row alone."""
    from rich.cells import cell_len

    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    widths = [
        max((size for cell in cells if (size := cell_len(cell)) <= width_max), default=0) for cells in columns
    ]
    for number, row in enumerate(zip(*columns, strict=True)):
        padded = []
        for cell, width, column in zip(row, widths, table.columns, strict=True):
            room = " " * (width - cell_len(cell))
            padded.append(room + cell if column.justify == "right" else cell + room)
        yield "   ".join(padded).rstrip()
        if number == 0:
            yield "─" * (sum(widths) + 3 * (len(widths) - 1))


def stderr_console() -> Console:
    """Return the console of stderr, for text that is not data."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False)
