"""Public names of ``postbacks``: its tasks, the event types, every error; and what they cost to import."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import postbacks
from postbacks import catalogue, errors


def classes_in(module, base):
    """Names of the public classes of a module that derive from a base."""
    return {
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and not name.startswith("_")
    }


def test_every_event_type_and_every_error_is_offered():
    """A new class of the catalogue or of errors.py asks for its line in ``__all__``."""
    offered = set(postbacks.__all__)
    assert classes_in(catalogue, catalogue.Event) - offered == set()
    assert classes_in(errors, errors.PostbacksError) - offered == set()


def test_nothing_is_offered_that_is_not_ours():
    """Neither a helper nor what a module of ours imported."""
    assert dir(postbacks) == sorted(postbacks.__all__)
    for name in postbacks.__all__:
        assert not isinstance(getattr(postbacks, name), ModuleType), name
    assert {"Any", "Literal", "Mapping", "quoted"} & set(postbacks.__all__) == set()


def test_a_misspelt_name_cannot_be_imported():
    """When run as well."""
    with pytest.raises(ImportError, match="SmsRecieved"):
        from postbacks import SmsRecieved  # noqa: F401


def test_importing_the_package_loads_no_celery_until_a_task_is_asked_for():
    """The event types and errors alone are quick to import."""
    program = (
        "import sys, postbacks; from postbacks import SmsReceived, BrokerError; print('celery' in sys.modules);"
        "from postbacks import send_postback; print('celery' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
