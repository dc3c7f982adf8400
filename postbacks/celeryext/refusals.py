"""Refusals of what Celery offers to do with a task and a postback cannot have, each with what to write instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from celery import Task

from postbacks.errors import UnsupportedOption
from postbacks.queue.send_request import check_request

#: How to send many.
MANY: Final = "send_postbacks(account, events), or group(send_postback.s(account, event) for event in events)"


def refuse_map(way: str) -> NoReturn:
    """Refuse what would call the task's function inside a worker, once an item: without ledger and resend."""
    raise UnsupportedOption(f"send_postback cannot be sent by {way}: write {MANY}.")


def refuse(call: str, instead: str) -> NoReturn:
    """Refuse a call with what to write instead."""
    raise UnsupportedOption(f"send_postback has no {call}: {instead}.")


class RefusingTask(Task):
    """Mirrors ``celery.app.task.Task``; differs in the methods below, which all refuse.

    Celery's own would run the task's function in a worker, send a message that is no postback, or do nothing.
    """

    abstract = True

    def chunks(self, it: Any, n: int) -> NoReturn:
        """Refuse: see ``refuse_map``."""
        del it, n
        refuse_map("chunks()")

    def map(self, it: Any) -> NoReturn:
        """Refuse: see ``refuse_map``."""
        del it
        refuse_map("map()")

    def starmap(self, it: Any) -> NoReturn:
        """Refuse: see ``refuse_map``."""
        del it
        refuse_map("starmap()")

    def replace(self, sig: Any) -> NoReturn:
        """Refuse: a postback runs no code of the caller's that could replace it."""
        del sig
        refuse("replace()", "revoke() the postback and send another one")

    def add_to_chord(self, sig: Any, lazy: bool = False) -> NoReturn:
        """Refuse: a postback may take half an hour, a chord is no place to wait for it."""
        del sig, lazy
        refuse("add_to_chord()", "postbacks cannot be part of a chord; send it with delay()")

    def update_state(self, task_id: Any = None, state: Any = None, meta: Any = None, **_: Any) -> NoReturn:
        """Refuse: only deliveries decide what a postback's state is."""
        del task_id, state, meta
        refuse("update_state()", "its state is what its deliveries made it; revoke() cancels one")


def signature_arguments(
    args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Check the arguments of a signature and write them as JSON can say them.

    Raises:
        InvalidEvent: lists every tag at fault.
        InvalidAccount: the account's name cannot be one.
        InvalidUrl: the URL cannot be one.
        UnsupportedOption: arguments that send_postback does not have, or too few: a signature takes none later.
    """
    try:
        order = check_request(args, kwargs)
    except UnsupportedOption as error:
        raise UnsupportedOption(
            f"{error} A signature of it takes no arguments later; for many write {MANY}."
        ) from None
    return (order.account, order.event.to_mapping()), {"url": order.url} if order.url else {}
