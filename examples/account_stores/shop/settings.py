"""Settings of the Django project that a worker reads accounts from."""

import os
from typing import Any

SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "a-worker-signs-no-cookie")
INSTALLED_APPS = ["shop"]
DATABASES: dict[str, Any] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHOP_DATABASE", "shop.db"),
        "CONN_MAX_AGE": 60,  # the store is called every second
        "CONN_HEALTH_CHECKS": True,  # a connection that the database has closed is replaced
    }
}
USE_TZ = True
