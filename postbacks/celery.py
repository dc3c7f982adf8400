"""What ``celery -A postbacks`` finds: the app with the deployment's configuration applied.

The configuration is the module ``celeryconfig`` of the working directory, or the one that
``CELERY_CONFIG_MODULE`` names. Programs that only import ``postbacks`` never load it.
"""

from __future__ import annotations

import importlib.util
import os

import postbacks.tasks  # noqa: F401 - registers the tasks
from postbacks.app import app as app

_named = os.environ.get("CELERY_CONFIG_MODULE")
if _named or importlib.util.find_spec("celeryconfig") is not None:
    app.config_from_object(_named or "celeryconfig")
