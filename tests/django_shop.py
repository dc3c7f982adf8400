"""Django for this process: the example's application, on two SQLite files that end with the process.

Django takes its settings once a process, so every test of the process that needs Django uses these.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples" / "account_stores"


@cache
def set_up() -> None:
    """Configure Django and make its tables."""
    import django
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connections

    folder = Path(tempfile.mkdtemp(prefix="postbacks-django-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    sys.path.append(str(EXAMPLES))
    databases = {
        alias: {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(folder / f"{alias}.db"),
            "CONN_MAX_AGE": 60,
            "CONN_HEALTH_CHECKS": True,
        }
        for alias in ("default", "archive")
    }
    settings.configure(DATABASES=databases, INSTALLED_APPS=["shop"], USE_TZ=True)
    django.setup()
    call_command("migrate", "--run-syncdb", verbosity=0)
    connections.close_all()
