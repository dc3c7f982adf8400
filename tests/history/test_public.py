"""The public face of the history: the page's example as it stands, and what is said where SQLAlchemy is not installed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import environment

import postbacks.history
from benchmarks.history_rows import Rows, account_name, fill
from postbacks.errors import HistoryOff
from postbacks.history import Query, count
from postbacks.history.engine import connect
from postbacks.history.migrations import prepare

PAGE = Path(__file__).parents[2] / "docs" / "history.md"


def test_the_example_of_the_page_runs_as_it_stands(tmp_path, broker, capsys):
    (example,) = re.findall(r"## From Python.*?```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert '"acme"' in example
    url = f"sqlite:///{tmp_path}/history.db"
    engine = connect(url)
    prepare(engine)
    fill(engine, Rows(2000, days=2))
    with environment(POSTBACKS_HISTORY_URL=url):
        exec(example.replace('"acme"', f'"{account_name(0)}"').replace("N201", "N811"), {})
    printed = capsys.readouterr().out
    dead = count(Query(account=account_name(0), state="dead"), engine=engine).postbacks
    engine.dispose()
    assert dead > 0
    assert printed.startswith(f"{dead}\n")
    assert printed.count("'state': 'dead'") == dead
    assert re.search(r"^\d+ without (code|state|account)$", printed, re.MULTILINE)


def test_no_history_is_one_sentence(monkeypatch):
    with environment(POSTBACKS_HISTORY_URL=""), pytest.raises(HistoryOff, match="No history is set"):
        count(Query())


@pytest.mark.parametrize("name", sorted(set(postbacks.history.__all__)))
def test_each_public_name_is_there_and_is_no_module(name):
    """A submodule that is imported takes the place of a function of its name."""
    assert type(getattr(postbacks.history, name)).__name__ in {"function", "type"}


def test_without_sqlalchemy_the_first_use_says_which_extra_to_install():
    program = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "import postbacks, postbacks.history as history\n"
        "assert history.Query(account='acme').account == 'acme'\n"
        "try: history.search\n"
        "except postbacks.HistoryUnfit as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "The history wants SQLAlchemy: pip install 'postbacks[history]'.\n"
