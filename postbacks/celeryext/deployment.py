"""The deployment's Celery configuration: imports its module, and refuses settings that postbacks cannot work with."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from celery.app.defaults import _TO_NEW_KEY, SETTING_KEYS
from celery.utils.imports import cwd_in_path

from postbacks import keys
from postbacks.errors import BadSetting
from postbacks.queue.protocol import can_unpack

#: The module of the working directory that is read where none is named.
DEFAULT_MODULE: Final = "celeryconfig"


def _never(_: object) -> bool:
    return False


def _is_off(value: object) -> bool:
    return not value


def _is_json(value: object) -> bool:
    return value in ("json", "application/json")


def _has_json(value: Any) -> bool:
    return _is_json(value) if isinstance(value, str) else any(_is_json(name) for name in value or ())


def _is_work_queue(value: object) -> bool:
    return value == keys.WORK_QUEUE


def _names(queues: Any) -> set[str]:
    entries: Iterable[Any] = queues or ()
    return {getattr(queue, "name", queue) for queue in entries}


def _has_work_queue(value: Any) -> bool:
    names = _names(value)
    return not names or (keys.WORK_QUEUE in names and keys.QUEUE not in names)


def _has_no_prefix(value: Any) -> bool:
    return not dict(value or {}).get("global_keyprefix")


def _is_mapping(value: object) -> bool:
    return not value or isinstance(value, Mapping)


def _is_iterable(value: object) -> bool:
    return not value or isinstance(value, Iterable)


def _is_protocol(value: object) -> bool:
    return value in (1, 2)


def _can_be_unpacked(value: object) -> bool:
    return not value or can_unpack(value)


def _leaves_ours_alone(value: Any) -> bool:
    mappings = value if isinstance(value, list | tuple) else [value]
    names = {name for mapping in mappings if isinstance(mapping, Mapping) for name in mapping}
    return not any(name == "*" or name.startswith("postbacks.") for name in names)


_BROKER: Final = (_never, "the broker is POSTBACKS_BROKER_URL")
_SERIALIZER: Final = "messages of postbacks are JSON"
_LIMIT: Final = "it would end a delivering child in the middle of its POSTs; give limits to tasks of your own"

#: Settings that may be refused: a test that an accepted value passes, and the advice where a value does not.
RULES: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    **dict.fromkeys(
        ("broker_url", "broker_read_url", "broker_write_url", "broker_transport", "broker_host", "broker_port",
         "broker_user", "broker_password", "broker_vhost"),
        _BROKER,
    ),
    "broker_use_ssl": (_is_off, "TLS to the broker is POSTBACKS_BROKER_URL=rediss://…"),
    "broker_transport_options": (_has_no_prefix, "a global_keyprefix would hide the queues that programs send to"),
    "result_backend": (_never, "results are read from the ledger on the broker"),
    "task_default_queue": (_is_work_queue, f"ticks travel by the queue {keys.WORK_QUEUE}"),
    "task_queues": (
        _has_work_queue,
        f"workers consume {keys.WORK_QUEUE}, which has to be among them; {keys.QUEUE} is for the tick alone",
    ),
    "include": (_is_off, "modules with tasks of the deployment's own stand in imports"),
    "imports": (_is_iterable, "it is a list of modules"),
    "task_serializer": (_is_json, _SERIALIZER),
    "task_compression": (_can_be_unpacked, "gzip and bzip2 are what the tick can read"),
    "task_protocol": (_is_protocol, "it is 2 or 1"),
    "beat_schedule": (_is_mapping, "it is a mapping of names to entries; the tick's is added"),
    "accept_content": (_has_json, f"{_SERIALIZER}, which has to be among them"),
    "task_always_eager": (_is_off, "nothing would be queued, and beat itself would deliver"),
    "task_annotations": (_leaves_ours_alone, "tasks of postbacks are not to be changed; name your own instead of *"),
    "task_default_rate_limit": (_is_off, "it would hold back the ticks; give limits to tasks of your own"),
    "task_time_limit": (_is_off, _LIMIT),
    "task_soft_time_limit": (_is_off, _LIMIT),
}  # fmt: skip


def read(module_name: str = "") -> dict[str, Any]:
    """Import the deployment's configuration; return its settings, those that have newer names under them.

    Args:
        module_name: the module that was asked for; without it ``celeryconfig``, if there is one.

    Raises:
        BadSetting: the module cannot be loaded, or has a setting that postbacks cannot work with.
    """
    name = where = module_name or DEFAULT_MODULE
    with cwd_in_path():
        try:
            spec = importlib.util.find_spec(name)
            if spec is None and not module_name:
                return {}
            where = (spec and spec.origin) or name
            module = importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - another program's file may raise anything
            raise BadSetting(
                f"the configuration {where!r} cannot be loaded: {type(error).__name__}: {error}. "
                "It is celeryconfig.py of the working directory, or the module that --config names."
            ) from None
        settings = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        problems = [*_forbidden(settings), *_missing(settings)]
    if problems:
        raise BadSetting(
            f"{where} sets what postbacks cannot work with: "
            f"{'; '.join(problems)}. Correct it; if it is another program's configuration, start from a "
            "directory without it, or name the right one with --config."
        )
    return {_TO_NEW_KEY.get(key, key): value for key, value in settings.items()}


def _forbidden(settings: Mapping[str, Any]) -> list[str]:
    """Return one phrase for each setting that a rule forbids."""
    problems = []
    for key, value in settings.items():
        if (rule := RULES.get(_setting_of(key))) is None:
            continue
        allows, advice = rule
        try:
            is_allowed = allows(value)
        except (TypeError, ValueError, AttributeError):  # it has another form than Celery's documents say
            is_allowed = False
        if not is_allowed:
            problems.append(f"{key} ({advice})")
    return problems


def _setting_of(key: str) -> str:
    """Return the current name of a setting; the module may use Celery 3's, or Django's with a prefix."""
    without_prefix = key.removeprefix("CELERY_").lower()
    if key in _TO_NEW_KEY:
        return str(_TO_NEW_KEY[key])
    return without_prefix if key.isupper() and without_prefix in SETTING_KEYS else key


def _missing(settings: Mapping[str, Any]) -> list[str]:
    """Return one phrase for each module of ``imports`` that is not there."""
    problems = []
    for key, value in settings.items():
        if _setting_of(key) != "imports" or not _is_iterable(value):
            continue
        for name in [value] if isinstance(value, str) else value or ():
            try:
                is_there = importlib.util.find_spec(name) is not None
            except Exception:  # noqa: BLE001 - its package may raise anything
                is_there = False
            if not is_there:
                problems.append(f"{key} (there is no module {name!r})")
    return problems
