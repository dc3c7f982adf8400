"""Values that may be secret: read from a file or standard input, so that no list of processes shows them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from typing import BinaryIO

#: Words of help texts.
HOW: Final = "@FILE or - (standard input) keeps it out of lists of processes."
#: Key in a call's context under which stands the parameter that reads standard input.
_STDIN: Final = "postbacks.stdin"
_MAX_BYTES: Final = 64 * 1024
_MAX_PEM_BYTES: Final = 1024 * 1024


def text(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return a value as it is, or the only line of a file (``@file``) or of standard input (``-``)."""
    if value is None:
        return None
    lines = _lines(ctx, param, value)
    if len(lines) > 1:
        raise click.BadParameter(f"{_source(value)} has {len(lines)} lines, not one.", ctx, param)
    return lines[0]


def texts(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return values as ``text`` does; each line of a file or of standard input is a value."""
    return tuple(line for value in values for line in _lines(ctx, param, value))


def file(ctx: click.Context, param: click.Parameter, value: BinaryIO | None) -> BinaryIO | None:
    """Return a file that ``click.File`` has opened; refuse standard input if another parameter reads it."""
    if value is not None and getattr(value, "name", "-") in {"-", "<stdin>"}:
        _claim_stdin(ctx, param)
    return value


def pem(ctx: click.Context, param: click.Parameter, value: BinaryIO | None) -> str | None:
    """Return the text of a PEM file that ``click.File`` has opened."""
    source = file(ctx, param, value)
    try:
        return None if source is None else source.read(_MAX_PEM_BYTES).decode("ascii")
    except UnicodeDecodeError:
        raise click.BadParameter("the file is no PEM text.", ctx, param) from None


def _lines(ctx: click.Context, param: click.Parameter, value: str) -> list[str]:
    if value != "-" and not value.startswith("@"):  # no URL, header, name or secret begins with either
        return [value]
    try:
        if value == "-":
            _claim_stdin(ctx, param)
            stdin = getattr(
                sys.stdin, "buffer", None
            )  # None in a program that was started without standard input
            data = stdin.read(_MAX_BYTES + 1) if stdin is not None else b""
        else:
            with open(value[1:], "rb") as source:  # noqa: PTH123 - Path("") would be the working directory
                data = source.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise click.BadParameter(f"{_source(value)} has more than {_MAX_BYTES} bytes.", ctx, param)
        # Line ends alone are stripped, as editors write them; other control characters are refused with the value.
        lines = [line.removesuffix("\r") for line in data.decode("utf-8-sig").split("\n")]
    except OSError as error:
        raise click.BadParameter(f"{_source(value)}: {error.strerror}.", ctx, param) from None
    except ValueError:
        raise click.BadParameter(f"{_source(value)} is no text.", ctx, param) from None
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise click.BadParameter(f"{_source(value)} is empty.", ctx, param)
    return lines


def _source(value: str) -> str:
    return "standard input" if value == "-" else f"the file {value[1:]!r}"


def _claim_stdin(ctx: click.Context, param: click.Parameter) -> None:
    name = param.opts[0] if param.param_type_name == "option" else param.make_metavar(ctx)
    if _STDIN in ctx.meta:
        raise click.UsageError(
            f"{ctx.meta[_STDIN]} and {name} both read standard input: give one of them as a file."
        )
    ctx.meta[_STDIN] = name
