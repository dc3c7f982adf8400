"""Class of the Celery app: the environment of the host program configures nothing of it."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import celery.app.base
from celery import Celery
from celery.app.utils import Settings
from celery.loaders.app import AppLoader
from celery.local import PromiseProxy

from postbacks.celeryext.capture import current
from postbacks.celeryext.refusals import refuse_map
from postbacks.queue.protocol import MAPS, TASK_NAME

#: Module that applies the deployment's configuration; by name, as programs that only send never load it.
COMMAND_LINE_MODULE: Final = "postbacks.celery"


class Configuration(Settings):
    """Celery's configuration without the variables of the host program's own Celery.

    Mirrors ``celery.app.utils.Settings``; differs in four settings, which ``CELERY_BROKER_URL``,
    ``CELERY_BROKER_READ_URL``, ``CELERY_BROKER_WRITE_URL`` and ``CELERY_RESULT_BACKEND`` do not override.
    """

    @property
    def broker_url(self) -> Any:
        """URL of the broker."""
        return self.first("broker_url", "broker_host")

    @property
    def broker_read_url(self) -> Any:
        """URL that workers consume from."""
        return self.get("broker_read_url") or self.broker_url

    @property
    def broker_write_url(self) -> Any:
        """URL that messages are sent to."""
        return self.get("broker_write_url") or self.broker_url

    @property
    def result_backend(self) -> Any:
        """Dotted name of the result backend."""
        return self.get("result_backend")


class Loader(AppLoader):
    """A loader that reads no configuration by itself.

    Mirrors ``celery.loaders.base.BaseLoader``; differs in leaving ``CELERY_CONFIG_MODULE`` alone: in a
    program that only imports us it names the configuration of that program's own app.
    """

    def read_configuration(self, env: str = "CELERY_CONFIG_MODULE") -> dict[str, Any]:
        """Return an empty configuration."""
        del env
        return {}


class CommandOptions(defaultdict[str, set[Any]]):
    """Additional options of Celery's commands: none.

    Mirrors the ``defaultdict`` of ``celery.Celery.user_options``; differs in loading the entry of ``celery -A`` when
    it is read. Celery's command line reads it when it has imported the app of ``-A`` and before it parses the options
    of the command: the moment to apply the deployment's configuration, whichever name ``-A`` gave.
    """

    def get(self, key: str, default: Any = None) -> Any:
        """Load the entry of ``celery -A postbacks``, then return the options of a command."""
        importlib.import_module(COMMAND_LINE_MODULE)
        return super().get(key, default)


class PostbackApp(Celery):
    """The Celery app of postbacks.

    Mirrors ``celery.Celery``; differs in reading no variable of the environment, in having no fixups (Django's
    would import the host project's settings), in loading the deployment's configuration whenever Celery's command
    line runs with it, and in the result backend of a test's capture.
    """

    def __init__(self, main: str, **options: Any) -> None:
        super().__init__(main, **options | {"loader": Loader, "fixups": []})
        self.user_options = CommandOptions(set)
        _use_configuration(self._conf)

    @property
    def backend(self) -> Any:
        """Result backend of this thread; that of a test's capture while one is open."""
        capture = current()
        return super().backend if capture is None else capture.backend

    def close_connections(self) -> None:
        """Let the next connection to the broker be made anew, as the configuration says then.

        Celery does so in a forked child.
        """
        self._after_fork()

    def _load_config(self) -> Settings:
        settings = super()._load_config()
        _use_configuration(settings)
        return settings

    def task(self, *args: Any, **options: Any) -> Any:
        """Register a task.

        Mirrors ``celery.Celery.task``; differs in a child that another app's prefork pool has spawned
        (``FORKED_BY_MULTIPROCESSING``): there Celery would register it with the app that is current.
        """
        if not celery.app.base.USING_EXECV:
            return super().task(*args, **options)

        def register(function: Any) -> Any:
            task_options = {name: value for name, value in options.items() if name != "shared"}
            task = PromiseProxy(self._task_from_fun, (function,), task_options, __doc__=function.__doc__)
            self._pending.append(task)
            return task

        return register(*args) if args else register

    def send_task(
        self, name: str, args: Any = None, kwargs: Any = None, *, task_type: Any = None, **options: Any
    ) -> Any:
        """Send a task by its name.

        Mirrors ``celery.Celery.send_task``; differs in that a postback is checked and sent as by
        ``send_postback.apply_async``. And as every message of our app comes through here, Celery's own tasks that would
        call ``send_postback`` as a function inside a worker are refused here, whoever made them.
        """
        if name in MAPS and _is_postback((kwargs or {}).get("task", next(iter(args or ()), None))):
            return self._send_map(name, (kwargs or {}).get("it", ()), options.get("task_id"))
        if name == TASK_NAME and task_type is None:
            options.pop("result_cls", None)
            return self.tasks[name].apply_async(args, kwargs, **options)
        return super().send_task(name, args, kwargs, task_type=task_type, **options)

    def _send_map(self, name: str, items: Iterable[Any], task_id: str | None) -> Any:
        """Refuse in the caller; in our worker, which runs another app's ``celery.chunks``, send each as a postback."""
        task = self.current_worker_task
        if task is None or task.name not in MAPS:
            refuse_map(name)
        for item in items:
            self.tasks[TASK_NAME].send_unchecked(item, {})
        return self.AsyncResult(task_id)


def _is_postback(signature: Any) -> bool:
    return isinstance(signature, Mapping) and signature.get("task") == TASK_NAME


def _use_configuration(settings: Settings) -> None:
    # Celery makes its own class by name, in several functions. Its attributes are keys of the configuration.
    object.__setattr__(settings, "__class__", Configuration)
