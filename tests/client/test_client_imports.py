"""Modules that an application loads to send; a worker loads more."""

from __future__ import annotations

import subprocess
import sys

#: What an application has no use for, by the first part of its name or by a module of ours.
NOT_FOR_CLIENTS = (
    "billiard.pool", "celery.bin", "celery.worker", "cryptography", "lxml", "prometheus_client", "pycurl",
    "pydantic_settings", "redis", "requests", "rich", "standardwebhooks", "postbacks.accounts", "postbacks.delivery",
    "postbacks.doctor", "postbacks.monitor", "postbacks.queue.intake", "postbacks.queue.scripts", "postbacks.queue.tick",
    "postbacks.settings", "postbacks.transport", "postbacks.worker",
)  # fmt: skip
#: The same, once something was sent: the broker's client and the settings are needed then.
NOT_FOR_SENDING = (
    "cryptography.fernet",  # the package itself comes with redis
    *(set(NOT_FOR_CLIENTS) - {"cryptography", "redis", "postbacks.settings", "postbacks.queue.scripts"}),
)
EVENT = '{"ORIGIN": "SUB", "CODE": "N301", "MOBILE": "15552312102", "CAMPAIGNID": "1", "BRANDNAME": "B"}'


def loaded(program: str, names: tuple[str, ...], **env: str) -> list[str]:
    """Run a program; return which of these modules, or modules of these packages, it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"],
        env=env or None,
        capture_output=True,
        text=True,
        check=True,
    )
    modules = done.stdout.splitlines()[-1].split()
    return sorted(
        module
        for module in modules
        if module in names or module.startswith(tuple(f"{name}." for name in names))
    )


def test_a_program_that_imports_send_postback_loads_nothing_that_only_workers_need():
    """Neither libcurl, lxml nor the pool; the broker's client and the settings are loaded with the first call."""
    names = (*NOT_FOR_CLIENTS, "pydantic", "postbacks.catalogue")  # the first call or event type loads these
    assert loaded("from postbacks import send_postback, send_postbacks", names) == []
    assert loaded("from postbacks import send_postback, SmsReceived", NOT_FOR_CLIENTS) == []


def test_a_program_that_sends_loads_no_worker(broker):
    """With one call, and with many."""
    program = (
        "from postbacks import send_postback, send_postbacks\n"
        f"send_postback.delay('acme', {EVENT})\n"
        f"send_postbacks('acme', [{EVENT}] * 2)"
    )
    assert loaded(program, NOT_FOR_SENDING, POSTBACKS_BROKER_URL=broker.url) == []
    assert broker.client().llen("postbacks") == 3


def test_a_program_that_looks_a_result_up_and_revokes_loads_no_worker(broker):
    """The ledger's reader is there; the delivering loop is not."""
    program = "from postbacks import send_postback, resend\nresult = send_postback.AsyncResult('one')\n"
    program += "assert result.state == 'PENDING'\nresult.revoke()\nassert resend('two') == ''"
    assert loaded(program, NOT_FOR_SENDING, POSTBACKS_BROKER_URL=broker.url) == []


def test_the_bootsteps_are_registered_by_name_and_each_name_is_one():
    """``-A postbacks`` and ``-A postbacks.app`` lead to the same app; a worker loads what the names say."""
    from celery import bootsteps
    from kombu.utils.imports import symbol_by_name

    from postbacks.app import CONSUMER_STEPS, WORKER_STEPS, app

    assert set(WORKER_STEPS) <= app.steps["worker"]
    assert set(CONSUMER_STEPS) <= app.steps["consumer"]
    for name in (*WORKER_STEPS, *CONSUMER_STEPS):
        assert issubclass(symbol_by_name(name), bootsteps.StartStopStep), name
