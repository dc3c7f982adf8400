"""Environment of a process as settings: read once, refused with a sentence, and looked through for what is no setting."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from pydantic import ValidationError

from postbacks.errors import BadSetting
from postbacks.settings.kubernetes import is_service_link, is_service_name
from postbacks.settings.table import PREFIX, Settings

#: Variables of the prefix that are no settings: the command line and the embedded broker read them.
_NO_SETTINGS: Final = frozenset(
    {"POSTBACKS_DEBUG", "POSTBACKS_LOCAL_SERVER", "POSTBACKS_USER", "POSTBACKS_VERIFY_SECRET"}
)
#: Settings that may hold a password, so that an error does not quote them.
_SECRET: Final = frozenset(
    {"proxy_url", "secret_key", "privacy_key", "broker_url", "history_url", "notice_url", "notice_secret", "web_token",
     "web_key"}
)  # fmt: skip


@lru_cache(maxsize=1)
def load() -> Settings:
    """Read the settings from the environment, once a process.

    Raises:
        BadSetting: names the variable, its value and what it should be.
    """
    if sentence := service_links():
        logging.getLogger(__package__).warning(sentence)
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"{PREFIX}{'_'.join(map(str, problem['loc'])).upper()}={_quoted(problem)}: "
            f"{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        )
        raise BadSetting(f"{problems}. Correct the environment and start again.") from None


def _quoted(problem: Mapping[str, Any]) -> str:
    """Quote the value that was refused; hide one that may hold a password."""
    return "(not shown)" if _SECRET.intersection(problem["loc"]) else repr(problem["input"])


def service_links() -> str:
    """Return one sentence about settings that Kubernetes has set and that are ignored; "" if there are none."""
    names = sorted(
        name
        for name, value in os.environ.items()
        if name.removeprefix(PREFIX).lower() in Settings.model_fields and is_service_link(name, value)
    )
    if not names:
        return ""
    variables = " and ".join(f"{name}={os.environ[name]}" for name in names)
    service = names[0].rpartition("_")[0].lower().replace("_", "-")
    return (
        f"{variables} is ignored: Kubernetes sets it in every pod beside a Service of the name {service}. "
        "Write enableServiceLinks: false into the pod's spec."
    )


def unknown_names() -> list[str]:
    """Return variables of the environment that look like settings and are none: most likely misspelt."""
    settings = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    return sorted(
        name
        for name, value in os.environ.items()
        if name.startswith(PREFIX)
        and name not in settings | _NO_SETTINGS
        and not is_service_name(name)
        and not is_service_link(name, value)
    )
