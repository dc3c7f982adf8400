"""Readers of settings: real processes write down what they read, and docs/settings.md names each of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from events import examples
from helpers import eventually, free_port
from test_settings import readers_of

from postbacks.devtools.receiver import Receiver, fail_first

BIN = Path(sys.executable).parent
#: Site customisation of every process: the first read of each setting is a line of a file of that process.
TRACE = """
    import importlib.abc, importlib.util, os, sys

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name != "postbacks.settings":
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (execute(module), trace(module.Settings))
            return spec

    def trace(settings):
        names, seen, get = set(settings.model_fields), set(), settings.__getattribute__

        def traced(self, name):
            if name in names and name not in seen:
                seen.add(name)
                with open(f"{os.environ['TRACE_TO']}/{os.getpid()}", "a") as file:
                    file.write(f"{' '.join(sys.argv)}\\t{name}\\n")
            return get(self, name)

        settings.__getattribute__ = traced

    sys.meta_path.insert(0, Finder())
"""


def reader_of(command: str) -> str:
    """Return the word of docs/settings.md for the process of a command line."""
    words = {
        "history run": "recorder",
        " worker": "worker",
        " beat": "beat",
        " flower": "Flower",
        " metrics": "metrics",
        " web": "web",
    }
    named = [reader for words_of, reader in words.items() if words_of in command]
    return (named or ["program" if command.startswith("-c") else "commands"])[0]


def run(*command: str | Path, env: dict[str, str], given: str | None = None) -> None:
    """Run a command that ends."""
    subprocess.run(command, env=env, input=given, check=True, capture_output=True, text=True, timeout=120)


def page(url: str) -> bytes:
    """Read a page; nothing while nobody serves it."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.read()
    except (urllib.error.URLError, ConnectionError):
        return b""


@pytest.mark.long
def test_no_process_reads_a_setting_that_the_document_does_not_say(tmp_path):
    """All processes of a system, a failure and a resend among what they do."""
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(TRACE))
    read = tmp_path / "read"
    read.mkdir()
    env = os.environ | {"PYTHONPATH": str(tmp_path), "TRACE_TO": str(read)}
    up = [BIN / "postbacks", "up", "--dev", "--json", "--port", str(free_port()), "--data", tmp_path / "data"]
    event = json.dumps(examples()["SMS_MO", "N211"])
    program = f"from postbacks import send_postback; send_postback.delay('acme', {event}).get(timeout=60)"
    with (
        Receiver(fail_first(1)) as receiver,
        Receiver() as calm,
        subprocess.Popen(up, env=env, stdout=subprocess.PIPE) as stack,
    ):
        stays = []
        try:
            said = json.loads(stack.stdout.readline())
            env |= {"POSTBACKS_BROKER_URL": said["broker_url"], "POSTBACKS_HISTORY_URL": said["history_url"]}
            run(BIN / "postbacks", "account", "set", "acme", "--url", receiver.url(), env=env)
            run(sys.executable, "-c", program, env=env)
            ports = free_port(), free_port()
            metrics = [BIN / "postbacks", "metrics", "--port", str(ports[0])]
            flower = [BIN / "celery", "-A", "postbacks", "flower", f"--port={ports[1]}"]
            stays += [
                subprocess.Popen(each, env=env, stderr=subprocess.DEVNULL) for each in (metrics, flower)
            ]
            eventually(lambda: b"postbacks_" in page(f"http://127.0.0.1:{ports[0]}/metrics"), timeout_s=60)
            eventually(lambda: page(f"http://127.0.0.1:{ports[1]}/"), timeout_s=60)
            eventually(lambda: page(said["web_url"]), timeout_s=60)
            for command in (["list"], ["health"], ["ping", calm.url()]):
                run(BIN / "postbacks", *command, env=env)
        finally:
            for process in (*stays, stack):
                process.terminate()
            for process in stays:
                process.wait(timeout=60)
    traced = {
        (reader_of(command), name)
        for path in read.iterdir()
        for command, name in (line.split("\t") for line in path.read_text().splitlines())
    }
    assert {reader for reader, _ in traced} == {
        "program", "worker", "beat", "recorder", "metrics", "Flower", "web", "commands",
    }  # fmt: skip
    assert len(traced) > 80
    assert sorted((reader, name) for reader, name in traced if reader not in readers_of(name)) == []
