"""Entry of ``celery -A postbacks``: the app with the deployment's configuration applied.

The configuration is the module ``celeryconfig`` of the working directory, or the one that ``--config`` names on the
command line. Variables of the environment that configure other Celery apps are not read (docs/environment.md).
Programs that only import ``postbacks`` never load this module; ``celery -A postbacks.app`` and any other ``-A`` that
leads to the app does.
"""

from __future__ import annotations

import sys
from types import TracebackType

from celery.utils.functional import maybe_list

import postbacks.tasks  # noqa: F401 - registers the tasks
from postbacks.app import ROUTES
from postbacks.app import app as app
from postbacks.celeryext import command_line, deployment, logs
from postbacks.errors import BadSetting, PostbacksError
from postbacks.logs import EventLog
from postbacks.printable import printable_lines
from postbacks.settings import load

log = EventLog(__name__)


def _configure() -> list[str]:
    """Apply the deployment's configuration; return variables that are set for other Celery apps and not read.

    Raises:
        BadSetting: a setting, an option or the configuration cannot be.
    """
    load()
    module_name, not_read = "", list[str]()
    context = command_line.celery_context()
    if context is not None:
        module_name = command_line.check_options(context)
        not_read = command_line.ignore_environment(context)
        command_line.keep_flower_local(context)
    changes = deployment.read(module_name)
    # A deployment's own entries stand beside ours, not in their place: the tick, the broker's time-outs.
    for name in {"beat_schedule", "broker_transport_options"} & changes.keys():
        changes[name] = {**app.conf[name], **(changes[name] or {})}
    if changes.get("task_routes"):  # the first that knows a task wins
        changes["task_routes"] = [ROUTES, *maybe_list(changes["task_routes"])]
    # What is added later wins. config_from_object would not do: celery 5.7 puts what is added before it.
    app.add_defaults(changes)
    return not_read


def _print_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error of ours as one line: ``celery -A postbacks call`` refuses what ``send_postback`` does."""
    if isinstance(error, PostbacksError):
        sys.stderr.write(f"Error: {printable_lines(str(error))}\n")
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _print_error

try:
    with logs.held():
        _not_read = _configure()
        logs.use()
except BadSetting as error:
    sys.stderr.write(f"postbacks: {printable_lines(str(error))}\n")
    raise SystemExit(2) from None
if _not_read:
    log.warning(
        "settings.not_read",
        "postbacks is configured by POSTBACKS_… and celeryconfig.py alone; see docs/environment.md",
        variables=",".join(_not_read),
    )
# In a process of `celery -A postbacks` ours is the app where none is named: Flower looks results up so, in threads of
# its own.
app.set_default()
app.set_current()
