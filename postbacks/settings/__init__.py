"""Settings of a process: each with its type, its default, its description, and its unit in its name.

A setting is read from the variable ``POSTBACKS_`` and its name in upper case. The settings are a table (``table.py``),
the forms of their values stand in ``values.py``. ``environment.py`` reads the table from the environment and says what
is wrong there, ``kubernetes.py`` knows the variables that Kubernetes adds to it.
"""

from postbacks.settings.environment import load, service_links, unknown_names
from postbacks.settings.table import Settings
from postbacks.settings.values import WEB_ROLES, Networks

__all__ = ["WEB_ROLES", "Networks", "Settings", "load", "service_links", "unknown_names"]
