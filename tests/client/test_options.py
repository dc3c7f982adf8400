"""The options of a call: every one that Celery and kombu read is known, and no other."""

from __future__ import annotations

import inspect

from amqp.basic_message import Message
from celery import Celery, Task
from celery.app.amqp import AMQP
from kombu import Producer

from postbacks.queue.options import Options

#: What Celery itself passes to the function named, so that a call cannot.
CELERYS_OWN = {
    "self", "name", "body", "args", "kwargs", "producer_", "result_cls", "task_type",  # Task.apply_async
    "callbacks", "errbacks", "create_sent_event",  # Celery.send_task
    "now", "timezone",  # stand in the message's properties as well, where JSON cannot hold them
    "message",  # AMQP's function that sends
}  # fmt: skip
#: What `apply_async` names itself, or refuses with a sentence of its own.
NAMED = {"task_id", "producer", "shadow", "link", "link_error", "chord", "chain", "expires"}


def names_in(*functions):
    """The names of the functions' arguments."""
    parameters = [p for function in functions for p in inspect.signature(function).parameters.values()]
    return {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}


def test_the_options_are_those_that_celery_and_kombu_read():
    """A new release of theirs that reads another one shows it here."""
    sends = AMQP(Celery("shop", set_as_current=False)).send_task_message
    read = names_in(Task.apply_async, Task.apply, Celery.send_task, AMQP.as_task_v2, sends, Producer.publish)
    read |= {name for name, _ in Message.PROPERTIES}
    assert set(Options.__annotations__) == read - CELERYS_OWN - NAMED
