"""Celery's own options under `-A postbacks`: which are refused, which are taken from the command line alone."""

from __future__ import annotations

import pytest
from celery.bin.celery import celery

from postbacks.celeryext.command_line import REFUSED, celery_context, check_options
from postbacks.errors import BadSetting


def context(*args: str):
    """Return what click makes of `celery ARGS report`."""
    return celery.make_context("celery", [*args, "report"], auto_envvar_prefix="CELERY")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("-b", "redis://shop"), "celery -b (--broker) is not for postbacks: the broker is POSTBACKS_BROKER_URL"),
        (("--broker=redis://shop",), "celery -b (--broker) is not for postbacks"),
        (("--result-backend", "rpc://"), "results are read from the ledger"),
        (("--loader", "shop.Loader"), "celery --loader is not for postbacks: the configuration is celeryconfig.py"),
    ],
    ids=["-b", "--broker", "--result-backend", "--loader"],
)  # fmt: skip
def test_an_option_that_would_be_without_effect_is_refused(args, words):
    """An option was meant, unlike a variable that stands in the environment for somebody else."""
    with pytest.raises(BadSetting) as refused:
        check_options(context(*args))
    assert words in str(refused.value)


def test_the_same_from_the_environment_is_passed_over(monkeypatch):
    """Such variables are for the host program's own Celery."""
    for name in [f"CELERY_{option.upper()}" for option in REFUSED] + [
        "BROKER_URL",
        "RESULT_BACKEND",
        "LOADER",
    ]:
        monkeypatch.setenv(name, "shop")
    assert check_options(context()) == ""


def test_the_configuration_is_named_on_the_command_line_alone(monkeypatch):
    """Not by a variable, in none of the three ways that Celery knows."""
    for name in ("CONFIG_MODULE", "CELERY_CONFIG", "CELERY_CONFIG_MODULE"):
        monkeypatch.setenv(name, "shop.settings")
    assert check_options(context()) == ""
    assert check_options(context("--config", "production")) == "production"


def test_another_directory_is_chosen_on_the_command_line_alone(monkeypatch, tmp_path):
    """Celery has gone there before we are asked, and would read that directory's celeryconfig.py."""
    monkeypatch.chdir(tmp_path)
    assert check_options(context("--workdir", str(tmp_path))) == ""
    monkeypatch.setenv("CELERY_WORKDIR", str(tmp_path))
    with pytest.raises(BadSetting, match=r"CELERY_WORKDIR='.*' would choose the configuration: unset it"):
        check_options(context())


def test_another_programs_command_line_is_left_alone():
    """`postbacks` and whatever else is made with click."""
    assert celery_context() is None
