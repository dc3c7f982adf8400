"""The deployment's celeryconfig.py: what stands in it by right, and what belongs to another project."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from postbacks.celeryext import deployment
from postbacks.errors import BadSetting

ROOT = Path(__file__).parents[2]


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read a text as the celeryconfig.py of the working directory."""
    monkeypatch.chdir(tmp_path)

    def read_text(text: str, name: str = "celeryconfig", asked: str = "") -> dict[str, object]:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        try:
            return deployment.read(asked)
        finally:
            sys.modules.pop(name, None)

    return read_text


FOREIGN = {
    'broker_url = "redis://127.0.0.1:6379/1"': "broker_url (the broker is POSTBACKS_BROKER_URL)",
    'BROKER_URL = "amqp://shop@rabbit//"': "BROKER_URL (the broker is POSTBACKS_BROKER_URL)",
    'CELERY_BROKER_URL = "amqp://shop@rabbit//"': "CELERY_BROKER_URL (the broker is POSTBACKS_BROKER_URL)",
    'broker_read_url = "x"': "broker_read_url (",
    'broker_write_url = "x"': "broker_write_url (",
    'BROKER_HOST = "rabbit"': "BROKER_HOST (",
    'BROKER_TRANSPORT = "sqs"': "BROKER_TRANSPORT (",
    "broker_use_ssl = True": "broker_use_ssl (TLS to the broker is POSTBACKS_BROKER_URL=rediss://…)",
    'broker_transport_options = {"global_keyprefix": "shop:"}': "broker_transport_options (a global_keyprefix ",
    'broker_transport_options = "none"': "broker_transport_options (",
    'result_backend = "rpc://"': "result_backend (results are read from the ledger on the broker)",
    'CELERY_RESULT_BACKEND = "django-db"': "CELERY_RESULT_BACKEND (",
    'task_default_queue = "shop"': "task_default_queue (ticks travel by the queue postbacks.work)",
    'CELERY_DEFAULT_QUEUE = "shop"': "CELERY_DEFAULT_QUEUE (",
    'CELERY_TASK_DEFAULT_QUEUE = "shop"': "CELERY_TASK_DEFAULT_QUEUE (",
    'from kombu import Queue\ntask_queues = [Queue("shop")]': "task_queues (workers consume postbacks.work",
    'task_queues = {"postbacks.work": {}, "postbacks": {}}': "task_queues (",
    "task_queues = 5": "task_queues (",
    'include = ["json"]': "include (modules with tasks of the deployment's own stand in imports)",
    'CELERY_INCLUDE = ["json"]': "CELERY_INCLUDE (",
    'imports = ["shop.tasks"]': "imports (there is no module 'shop.tasks')",
    'CELERY_IMPORTS = "no_such_shop"': "CELERY_IMPORTS (there is no module 'no_such_shop')",
    "imports = 5": "imports (it is a list of modules)",
    'task_serializer = "pickle"': "task_serializer (messages of postbacks are JSON)",
    'CELERY_TASK_SERIALIZER = "yaml"': "CELERY_TASK_SERIALIZER (",
    'task_serializer = ["json"]': "task_serializer (",
    'accept_content = ["pickle"]': "accept_content (messages of postbacks are JSON, which has to be among them)",
    "accept_content = []": "accept_content (",
    'task_compression = "zstd"': "task_compression (gzip and bzip2 are what the tick can read)",
    'CELERY_MESSAGE_COMPRESSION = "brotli"': "CELERY_MESSAGE_COMPRESSION (gzip and bzip2 ",
    "task_protocol = 3": "task_protocol (it is 2 or 1)",
    "beat_schedule = 5": "beat_schedule (it is a mapping",
    "task_always_eager = True": "task_always_eager (",
    "CELERYD_TASK_TIME_LIMIT = 30": "CELERYD_TASK_TIME_LIMIT (it would end a delivering child",
    "task_soft_time_limit = 30": "task_soft_time_limit (",
    'task_default_rate_limit = "10/m"': "task_default_rate_limit (it would hold back the ticks",
    'task_annotations = {"*": {"rate_limit": "10/m"}}': "task_annotations (",
    'task_annotations = [{"postbacks.deliver": {"time_limit": 5}}]': "task_annotations (",
}


@pytest.mark.parametrize(("text", "words"), FOREIGN.items(), ids=[text.split("\n")[-1] for text in FOREIGN])
def test_a_setting_that_postbacks_cannot_work_with_is_refused_by_file_and_name(read, tmp_path, text, words):
    """In today's spelling, Celery 3's, and Django's with its prefix."""
    with pytest.raises(BadSetting) as refused:
        read(f"{text}\n")
    assert str(refused.value).startswith(
        f"{tmp_path / 'celeryconfig.py'} sets what postbacks cannot work with: "
    )
    assert words in str(refused.value)


def test_all_settings_at_fault_are_named_at_once(read):
    """A start needs one correction, not one for each setting."""
    with pytest.raises(BadSetting) as refused:
        read('BROKER_URL = "x"\nCELERY_RESULT_BACKEND = "x"\ninclude = ["x"]\nworker_concurrency = 8\n')
    for name in ("BROKER_URL", "CELERY_RESULT_BACKEND", "include"):
        assert f"{name} (" in str(refused.value)
    assert "worker_concurrency" not in str(refused.value)


ALLOWED = {
    "worker_concurrency = 8": {"worker_concurrency": 8},
    "CELERYD_CONCURRENCY = 8": {"worker_concurrency": 8},
    "SHOP = 1": {"SHOP": 1},
    'imports = ("json",)': {"imports": ("json",)},
    'task_default_queue = "postbacks.work"': {"task_default_queue": "postbacks.work"},
    'task_queues = {"postbacks.work": {}, "shop": {}}': {"task_queues": {"postbacks.work": {}, "shop": {}}},
    "task_queues = None": {"task_queues": None},
    'accept_content = ["json", "pickle"]': {"accept_content": ["json", "pickle"]},
    'accept_content = "json"': {"accept_content": "json"},
    'task_compression = "gzip"': {"task_compression": "gzip"},
    "task_compression = None": {"task_compression": None},
    "task_protocol = 1": {"task_protocol": 1},
    "beat_schedule = None": {"beat_schedule": None},
    'broker_transport_options = {"x": 1}': {"broker_transport_options": {"x": 1}},
    "task_time_limit = None": {"task_time_limit": None},
    'task_annotations = {"shop.add": {"rate_limit": "1/s"}}': {
        "task_annotations": {"shop.add": {"rate_limit": "1/s"}}
    },
}


@pytest.mark.parametrize(("text", "settings"), ALLOWED.items(), ids=list(ALLOWED))
def test_what_a_deployment_may_set_is_taken(read, text, settings):
    """A deployment's own tasks with their queues are among it; old names stand under the new ones, so that no two
    can differ.
    """
    assert read(f"{text}\n") == settings


def test_our_own_file_is_taken(read):
    """The one beside docker-compose.yml."""
    assert read((ROOT / "celeryconfig.py").read_text())["worker_pool"] == "threads"


def test_a_file_that_raises_is_named_with_what_it_raised(read, tmp_path):
    """Another project's wants its own environment; nobody needs the traceback."""
    with pytest.raises(BadSetting) as refused:
        read('import os\nos.environ["NO_SUCH_VARIABLE"]\n')
    assert f"{str(tmp_path / 'celeryconfig.py')!r} cannot be loaded: KeyError: 'NO_SUCH" in str(refused.value)


def test_a_module_that_was_asked_for_is_judged_in_the_same_way(read, tmp_path):
    """And one that is not there is no reason to run on the defaults."""
    assert read("worker_concurrency = 9\n", "production", "production") == {"worker_concurrency": 9}
    with pytest.raises(BadSetting, match=r"production\.py sets what postbacks cannot work with: include \("):
        read("include = ['json']\n", "production", "production")
    with pytest.raises(BadSetting, match="the configuration 'prodcution' cannot be loaded"):
        read("", "production", "prodcution")


def test_without_a_file_nothing_is_changed(tmp_path, monkeypatch):
    """The built-in configuration is complete."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if Path(path).resolve() != ROOT])
    monkeypatch.delitem(
        sys.modules, "celeryconfig", raising=False
    )  # another test's `celery` has imported ours
    assert deployment.read() == {}
