"""``postbacks metrics`` and ``postbacks health``: answers for a monitoring system."""

from __future__ import annotations

import gc

import click

from postbacks.cli.base import (
    Command,
    exit_at_once,
    json_option,
    print_json,
    runs_as_program,
    say,
    seconds,
    stop_signals,
)
from postbacks.printable import printable

#: Prometheus' registry of ports gives 9464 to exporters of OpenTelemetry's kind; nothing else is known there.
DEFAULT_PORT = 9464


@click.command(
    cls=Command,
    examples=("postbacks metrics", "postbacks metrics --port 9464 --host 0.0.0.0"),
)
@click.option(
    "--port",
    default=DEFAULT_PORT,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
def metrics(port: int, host: str) -> None:
    """Serve the whole system's figures to Prometheus, until Ctrl-C.

    /metrics is read from the broker at each scrape; /healthz says that this process is alive; /readyz says whether
    the system is well (503 where it is not). They ask for no password: keep the port from strangers.
    """
    from postbacks.logs import EventLog, write_to_stderr
    from postbacks.monitor.metrics import SystemCollector
    from postbacks.monitor.server import MonitorServer
    from postbacks.settings import load

    stop_signals()
    settings = load()
    server = MonitorServer(host, port, [SystemCollector(settings)], settings)
    write_to_stderr(settings.log)
    if settings.log == "json":
        EventLog(__name__).info("metrics.served", host=host, port=server.port)
    else:
        address = f"[{host}]" if ":" in host else host
        say(
            f"Metrics are at http://{address}:{server.port}/metrics, health at /healthz and /readyz. Ctrl-C ends it."
        )
    try:
        server.serve()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()


@click.command(
    cls=Command,
    examples=("postbacks health", "postbacks health --max-tick-age 30 --json", "postbacks health --worker"),
)
@click.option(
    "--max-tick-age", type=float, metavar="SECONDS", callback=seconds,
    help="Not well if the last tick finished longer ago; POSTBACKS_HEALTH_TICK_AGE_S (10).",
)  # fmt: skip
@click.option(
    "--max-waiting-age", type=float, metavar="SECONDS", callback=seconds,
    help="Not well if a postback of a working receiver waits longer; POSTBACKS_HEALTH_WAITING_AGE_S (60).",
)  # fmt: skip
@click.option(
    "--worker", is_flag=True, help="Ask the worker beside it as well, at POSTBACKS_METRICS_PORT: is it alive?"
)
@click.option(
    "--timeout", "timeout_s", default=2.0, show_default=True, type=click.FloatRange(0.05, 60), metavar="SECONDS",
    help="For all of it.",
)  # fmt: skip
@json_option
def health(
    max_tick_age: float | None, max_waiting_age: float | None, worker: bool, timeout_s: float, as_json: bool
) -> None:
    """Say in one line whether the system is well.

    Exit code 0 if so, 1 if not. Looks at the broker, at the age of the last finished tick (beat and a worker are
    needed for one), and at how long the oldest postback waits that could be sent. For a container's health check.
    """
    if runs_as_program():
        gc.disable()  # it would look a dozen times through what is imported next, all of which stays
    from postbacks.monitor.health import judge
    from postbacks.settings import load

    settings = load()
    if worker and not settings.metrics_port:
        raise click.UsageError("--worker asks the worker at POSTBACKS_METRICS_PORT, which is not set.")
    judged = judge(settings, tick_age_s=max_tick_age, waiting_age_s=max_waiting_age, timeout_s=timeout_s)
    fault = _fault_of_worker(settings.metrics_port, timeout_s) if worker else ""
    ok = judged.ok and not fault
    if as_json:
        fields = judged.to_public_dict() | {"ok": ok}
        if worker:
            fields |= {"worker": not fault, "faults": [*judged.faults, *([fault] if fault else [])]}
        print_json(fields)
    else:
        line = judged.line if not fault else " ".join(("not well:", *judged.faults, fault))
        click.echo(printable(line))
    exit_at_once(0 if ok else 1)


def _fault_of_worker(port: int, timeout_s: float) -> str:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"The worker at port {port} does not answer ({type(error).__name__}): is it running?"
    finally:
        connection.close()
    return "" if status == 200 else f"The worker at port {port} is stopping."
