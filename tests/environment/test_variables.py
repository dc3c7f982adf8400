"""variables.txt against the source of Celery, kombu, billiard and Flower, and against what the documents say."""

from __future__ import annotations

import re
from pathlib import Path

import click
import hostile
import pytest
import variables
from celery.bin.celery import celery

from postbacks.celeryext import command_line

PAGE = (Path(__file__).parents[2] / "docs" / "environment.md").read_text()
EFFECTS = set(re.findall(r"^# (\w+)  +\w", hostile.LIST.read_text(), re.MULTILINE))
#: Those of which an operator should know.
TOLD = {"refused", "first", "import", "flower"}

WHAT_TO_DO = (
    "Celery reads {}. Add to tests/environment/variables.txt a line for each, with what comes of it in a process of "
    "postbacks (its head has the words); where the word is import or first, name it in docs/environment.md too, and "
    "give it a value that can be read in tests/environment/hostile.py. Then run the tests of this folder."
)


def test_the_committed_list_is_what_celery_reads():
    """So that a new release of Celery shows what it adds."""
    known = {line.name: line.where for line in hostile.committed()}
    read = variables.variables()
    new = [f"{name} ({places})" for name, places in read.items() if known.get(name) != places]
    assert not new, WHAT_TO_DO.format("; ".join(new))
    gone = sorted(known.keys() - read.keys())
    assert not gone, (
        f"Celery no longer reads {', '.join(gone)}: take them out of variables.txt and the documents."
    )


def test_each_line_has_one_of_the_words_at_the_head_of_the_list():
    assert {line.effect for line in hostile.committed()} == EFFECTS
    names = [line.name for line in hostile.committed()]
    assert len(set(names)) == len(names)


def test_the_page_names_every_variable_that_is_read():
    """Nobody has to read Celery's source to learn what still counts."""
    told = [
        line.name for line in hostile.committed() if line.effect in TOLD and not line.name.startswith("?")
    ]
    assert [name for name in told if f"`{name}`" not in PAGE and name != "PWD"] == []


def test_the_page_names_no_variable_that_celery_does_not_read():
    """A renamed one would stay there otherwise."""
    known = {line.name for line in hostile.committed()}
    named = set(re.findall(r"`((?:CELERY|C|KOMBU)_[A-Z_]+[A-Z])`", PAGE))
    assert named <= known


@pytest.fixture
def every_option_has_its_variable(monkeypatch):
    for name, value in hostile.environment().items():
        monkeypatch.setenv(name, value)
    return {line.name for line in hostile.committed() if line.effect == "ignored"}


def commands_of(context: click.Context):
    """Every command below a context, with a context of its own as click makes it."""
    for name, command in getattr(context.command, "commands", {}).items():
        inner = click.Context(command, info_name=name, parent=context)
        yield inner
        yield from commands_of(inner)


def set_by_variables(context: click.Context) -> set[str]:
    """The variables that options of commands would take their value from."""
    return {
        f"{inner.auto_envvar_prefix}_{option.name.upper()}"
        for inner in commands_of(context)
        for option in inner.command.params
        if isinstance(option, click.Option) and option.resolve_envvar_value(inner) is not None
    }


def test_no_option_of_any_command_is_set_by_its_variable(every_option_has_its_variable):
    """All of worker, beat, inspect, control, purge, migrate …: what click would read, and does not any more."""
    root = click.Context(celery, info_name="celery", auto_envvar_prefix="CELERY")
    assert set_by_variables(root) == every_option_has_its_variable
    command_line.ignore_environment(root)
    assert set_by_variables(root) == set()


def test_what_is_set_and_not_read_is_told_for_the_command_that_runs(every_option_has_its_variable):
    """Celery's general ones, and those of this command alone."""
    root = click.Context(celery, info_name="celery", auto_envvar_prefix="CELERY")
    root.invoked_subcommand = "beat"
    told = command_line.ignore_environment(root)
    assert {"CELERY_BROKER_URL", "CELERY_LOADER", "CELERY_BEAT_LOGLEVEL"} < set(told)
    assert not any(name.startswith("CELERY_WORKER_") for name in told)
