"""Settings of the project; what differs between machines is read from the environment."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).parents[1]

DEBUG = os.environ.get("DEBUG", "1") == "1"
SECRET_KEY = os.environ["SECRET_KEY"] if not DEBUG else "only for this machine"
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "").split() or ["127.0.0.1", "localhost"]

INSTALLED_APPS = ["inbox"]
ROOT_URLCONF = "textline.urls"
WSGI_APPLICATION = "textline.wsgi.application"

# The workers of postbacks read the customers here too: with SQLite they run on this machine.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE_PATH", BASE_DIR / "db.sqlite3"),
        "CONN_MAX_AGE": 60,  # the workers ask every second
        "CONN_HEALTH_CHECKS": True,  # a connection that the database has closed is replaced
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
