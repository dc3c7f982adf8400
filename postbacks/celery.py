"""What ``celery -A postbacks`` finds: the app with the deployment's configuration applied.

The configuration is the module ``celeryconfig`` of the working directory, or the one that
``CELERY_CONFIG_MODULE`` names. Programs that only import ``postbacks`` never load it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import TracebackType
from typing import NoReturn

import postbacks.tasks  # noqa: F401 - registers the tasks
from postbacks.app import BEAT_SCHEDULE
from postbacks.app import app as app
from postbacks.celery_logs import use as use_our_logs
from postbacks.errors import BadSetting, PostbacksError
from postbacks.settings import load


def _refuse(sentence: str) -> NoReturn:
    sys.stderr.write(f"postbacks: {sentence}\n")
    raise SystemExit(2)


def _print_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error of ours as one line: ``celery -A postbacks call`` refuses what ``send_postback`` does."""
    if isinstance(error, PostbacksError):
        sys.stderr.write(f"Error: {error}\n")
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _print_error

try:
    load()
except BadSetting as error:
    _refuse(str(error))

_named = os.environ.get("CELERY_CONFIG_MODULE")
if _named or importlib.util.find_spec("celeryconfig") is not None:
    try:
        _module = importlib.import_module(_named or "celeryconfig")
    except ModuleNotFoundError as error:
        _refuse(
            f"the configuration {_named or 'celeryconfig'!r} cannot be loaded: {error}. See CELERY_CONFIG_MODULE."
        )
    # What is added later wins. config_from_object would not do: celery 5.7 puts what is added before it.
    _changes = {name: value for name, value in vars(_module).items() if not name.startswith("_")}
    if "beat_schedule" in _changes:  # a deployment's own entries stand beside the tick, not in its place
        _changes["beat_schedule"] = BEAT_SCHEDULE | _changes["beat_schedule"]
    app.add_defaults(_changes)

use_our_logs()
# In a process of `celery -A postbacks` ours is the app that is meant where none is named: Flower looks
# results up so, in threads of its own.
app.set_default()
app.set_current()
