"""Options ``--reveal --why TEXT``: what is personal is masked without them."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable


def reveal_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options; it is called with the keyword ``reveal``, the reason, None where nothing is revealed."""

    @click.option("--reveal", is_flag=True, help="Show numbers, addresses and texts; wants --why.")
    @click.option("--why", metavar="TEXT", help="Why they are revealed, for the journal: a ticket.")
    @wraps(command)
    def with_reveal(*, reveal: bool, why: str | None, **parameters: Any) -> None:
        if reveal and not (why or "").strip():
            raise click.UsageError(
                "--reveal wants --why TEXT, such as --why 'ticket 4711': it is written to the journal."
            )
        if why is not None and not reveal:
            raise click.UsageError("--why says why something is revealed: add --reveal, or leave it out.")
        command(reveal=why if reveal else None, **parameters)

    return with_reveal
