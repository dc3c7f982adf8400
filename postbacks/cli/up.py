"""``postbacks up``: broker, beat, workers, recorder and dashboard in one terminal."""

from __future__ import annotations

import re
import secrets
import shlex
import socket
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from postbacks.cli.base import OF_WEB, Command, json_option, print_json, say, stop_signals
from postbacks.cli.web import DEFAULT_PORT as WEB_PORT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postbacks.devtools.embedded_broker import EmbeddedBroker
    from postbacks.devtools.stack import LocalStack, StackProcess
    from postbacks.settings import Settings

#: Loopback and the private networks, but not link-local, where clouds serve their secrets.
DEV_NETWORKS: Final = "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"
#: Seconds to a resend with ``--dev``, unless the environment sets it: people who try it out wait for it.
DEV_COUNTDOWN_S: Final = 5
#: Ports to try where none is given; the first is the one of the default broker URL.
_PORTS: Final = range(6379, 6400)
_WEB_PORTS: Final = range(WEB_PORT, WEB_PORT + 20)
#: Seconds between two looks at the processes and their logs.
_LOOK_EVERY_S: Final = 0.25
#: Begin of a log record that the terminal shows, as text and as JSON.
_WARNING: Final = re.compile(
    r'\[[^]]*: (WARNING|ERROR|CRITICAL)/|\{"ts": "[^"]*", "level": "(WARNING|ERROR|CRITICAL)"'
)
#: Begin of any log record; other lines belong to the record before them.
_RECORD: Final = re.compile(r'\[\d{4}-\d\d-\d\d |\{"ts": ')


@click.command(
    cls=Command,
    examples=("postbacks up --dev", "postbacks up --port 6380 --data /var/lib/postbacks --workers 2"),
)
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    help="Port of the broker; without it, the first free one from 6379.",
)
@click.option(
    "--data",
    default="postbacks-data",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the broker's data and the logs. It stays, and the next start goes on with it.",
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Worker processes.")
@click.option(
    "--dev",
    is_flag=True,
    help=f"Allow receivers on this machine and in private networks; send again after {DEV_COUNTDOWN_S} s.",
)
@click.option(
    "--web-port",
    type=click.IntRange(1, 65_535),
    help="Port of the dashboard; without it, the first free one from 8910.",
)
@json_option
def up(port: int | None, data: Path, workers: int, dev: bool, web_port: int | None, as_json: bool) -> None:
    """Start broker, beat, workers, a recorder of the history and the dashboard in this terminal.

    Ctrl-C lets them finish what is open, and stops them. The broker is a Valkey server on 127.0.0.1 with a password: no
    other user of this machine can use it or read its data. It writes everything to its append-only file before it
    answers, so nothing accepted is lost, whichever process dies. The history stands in history.db beside it, or at
    POSTBACKS_HISTORY_URL where that is set. The dashboard wants the token in web.token; with --dev it wants none.
    """
    from postbacks.devtools.embedded_broker import EmbeddedBroker
    from postbacks.devtools.stack import LocalStack
    from postbacks.errors import PostbacksError
    from postbacks.settings import load

    settings = load()  # loaded before anything starts, as a setting may be refused
    stop_signals()
    dev_env = _dev_environment(settings) if dev else {}
    broker = EmbeddedBroker(data, port=_free_port(port), with_password=True)
    history_url, history_words = _history(settings, data)
    web = _web(settings, data, web_port, dev=dev)
    stopping = False
    try:
        say("Starting the broker, the workers and the beat …")
        with broker:
            stack = LocalStack(
                broker,
                workers=workers,
                env=dev_env,
                log_dir=data,
                history_url=history_url,
                web_socket=web.listening,
                web_token=web.token,
            )
            try:
                with stack:
                    _say_ready(broker, data, stack, dev_env, history_url, history_words, web, as_json=as_json)
                    _warn_of_disk(broker)
                    try:
                        _watch(broker, stack)
                    except KeyboardInterrupt:
                        stopping = True
                        say("\nStopping: what is open is finished first (Ctrl-C again does not wait) …")
            except PostbacksError:
                if broker.alive:
                    raise
                raise _ended(broker) from None
    except KeyboardInterrupt:
        if stopping:
            raise  # the second one: all is killed, nothing accepted is lost
    say("Stopped.")


def _dev_environment(settings: Settings) -> dict[str, str]:
    """Return the variables that ``--dev`` sets for the workers; a countdown that the environment sets stays."""
    is_set = "retry_countdown_s" in settings.model_fields_set
    networks = [*map(str, settings.allowed_networks), DEV_NETWORKS]
    return {
        "POSTBACKS_ALLOWED_NETWORKS": ",".join(networks),
        "POSTBACKS_RETRY_COUNTDOWN_S": f"{settings.retry_countdown_s if is_set else DEV_COUNTDOWN_S:g}",
    }


class _Web(NamedTuple):
    """Dashboard of the stack.

    Attributes:
        listening: its socket; None where there is none.
        token: that it is started with; empty for none.
        login: what is printed of its login; empty for the environment's.
    """

    listening: socket.socket | None
    token: str = ""
    login: str = ""

    @property
    def url(self) -> str | None:
        """Address of its first page; None where there is none."""
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}/" if self.listening else None

    @property
    def words(self) -> str:
        """Return what is printed of it."""
        if self.url is None:
            return "none: pip install 'postbacks[web]' brings what it needs"
        return f"{self.url} ({self.login})" if self.login else self.url


def _web(settings: Settings, data: Path, port: int | None, *, dev: bool) -> _Web:
    """Choose the dashboard's port and its login: the environment's, none with ``--dev``, else a token for this user alone."""
    if any(find_spec(name) is None for name in (*OF_WEB, "sqlalchemy")):
        return _Web(None)
    from postbacks.devtools.process import open_private
    from postbacks.web.config import Config

    listening = _listen(port, _WEB_PORTS, "--web-port")
    if Config(settings).has_login:
        return _Web(listening)
    if dev:
        return _Web(listening, login="no login: any user of this machine has all rights")

    path = data / "web.token"
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with open(path, "x", opener=open_private) as file:
            file.write(f"{secrets.token_urlsafe(24)}\n")
    except FileExistsError:
        pass
    return _Web(listening, path.read_text().strip(), f"its token: {path}")


def _free_port(port: int | None) -> int:
    """Check that the port is free, or find the first free one where none is given, before anything starts."""
    with _listen(port, _PORTS, "--port") as free:
        return int(free.getsockname()[1])


def _listen(port: int | None, ports: range, option: str) -> socket.socket:
    """Listen on a port, or on the first free one where none is given."""
    for candidate in [port] if port else ports:
        with suppress(OSError):
            return socket.create_server(("127.0.0.1", candidate))
    busy = (
        f"Port {port} of 127.0.0.1 is"
        if port
        else f"The ports {ports[0]} to {ports[-1]} of 127.0.0.1 are all"
    )
    raise click.UsageError(f"{busy} in use: stop what listens there, or give another one with {option} N.")


def _history(settings: Settings, data: Path) -> tuple[str, str]:
    """Return the URL of the history, empty for none, and the words that are printed of it."""
    if find_spec("sqlalchemy") is None:
        return "", "none: pip install 'postbacks[history]' brings what it needs"
    if settings.history_url:
        from postbacks.history.transactions import display

        return settings.history_url, display(settings.history_url)
    path = data.resolve() / "history.db"
    if "?" in str(path):
        return "", "none: a ? in the path of the data cannot stand in the URL of its database"
    return f"sqlite:///{path}", f"{data}/history.db (SQLite), where `postbacks list` searches"


def _say_ready(
    broker: EmbeddedBroker,
    data: Path,
    stack: LocalStack,
    dev_env: dict[str, str],
    history_url: str,
    history_words: str,
    web: _Web,
    *,
    as_json: bool,
) -> None:
    from postbacks.broker.url import redacted_broker_url

    logs = [process.log_path.name for process in _processes(stack)]
    if as_json:
        print_json(
            {
                "broker_url": broker.url,
                "history_url": history_url or None,
                "web_url": web.url,
                "data": str(data.resolve()),
                "logs": logs,
                "workers": len(stack.workers),
                "dev": bool(dev_env),
            }
        )
        return
    say(f"""
  broker     {redacted_broker_url(broker.url)} (its password: {data}/broker.password)
  data       {data}/ (append-only, on the disk before an answer; for you alone)
  history    {history_words}
  dashboard  {web.words}
  logs       {", ".join(f"{data}/{log}" for log in logs)}; warnings are shown here
  receivers  {"on the internet, on this machine and in private networks" if dev_env else "on the internet only; --dev allows this machine's too"}
  resends    {_resend_words(dev_env)}
""")
    if dev_env:
        say("In a second terminal, a receiver:\n\n    postbacks receive --port 8080\n\nIn a third one:\n")
    else:
        say("In another terminal:\n")
    url = "http://127.0.0.1:8080/postbacks" if dev_env else "https://YOUR-SERVER/postbacks"
    click.echo(f"    export POSTBACKS_BROKER_URL={broker.url}")
    if history_url:
        click.echo(f"    export POSTBACKS_HISTORY_URL={shlex.quote(history_url)}")
    say(f"    postbacks account set acme --url {url}")
    say("    postbacks example SMS_MO N211 | postbacks send acme - --wait 10\n\nCtrl-C stops all of it.")


def _ended(broker: EmbeddedBroker) -> click.ClickException:
    """Return the error for a broker that has ended, with the reason."""
    return click.ClickException(
        f"The broker has ended by itself. {broker.why_ended().rstrip()} All is stopped."
    )


def _warn_of_disk(broker: EmbeddedBroker) -> None:
    """Warn if the disk of the broker's data is nearly full, which would end the broker."""
    from postbacks.devtools.embedded_broker import DISK_LOW_BYTES

    free = broker.free_bytes()
    if free < DISK_LOW_BYTES:
        say(
            f"Only {free // 2**20:,} MiB are free on the disk of {broker.data_dir}: when it is full the broker ends, and cannot "
            "be started until there is room."
        )


def _resend_words(dev_env: dict[str, str]) -> str:
    from postbacks.settings import load

    countdown = f"{load().retry_countdown_s:g}"
    here = dev_env.get("POSTBACKS_RETRY_COUNTDOWN_S", countdown)
    return f"{here} s after a failure" + (f"; {countdown} s without --dev" if here != countdown else "")


def _processes(stack: LocalStack) -> list[StackProcess]:
    return [*stack.workers, *stack.beats, *stack.recorders, *stack.webs]


def _watch(broker: EmbeddedBroker, stack: LocalStack) -> None:
    """Show the logs' warnings until Ctrl-C, or until a process ends that should not."""
    processes = {process.log_path.stem: process for process in _processes(stack)}
    logs = [_WarningTail(name, process) for name, process in processes.items()]
    while True:
        for log in logs:
            for line in log.read():
                say(line)
        ended = [name for name, process in {"the broker": broker, **processes}.items() if not process.alive]
        if ended and ended[0] == "the broker":
            raise _ended(broker)
        if ended:
            log_path = {"the broker": broker, **processes}[ended[0]].log_path
            raise click.ClickException(
                f"{ended[0].capitalize()} has ended by itself; {log_path} says why. All is stopped."
            )
        time.sleep(_LOOK_EVERY_S)


class _WarningTail:
    """Tail of a log file: its warnings and errors, with the lines that belong to them."""

    def __init__(self, name: str, process: StackProcess) -> None:
        self._name = name
        self._path = process.log_path
        self._offset = self._path.stat().st_size
        self._in_warning = False

    def read(self) -> Sequence[str]:
        """Return the lines logged since the last call."""
        with self._path.open("rb") as log:
            log.seek(self._offset)
            text = log.read()
        text = text[: text.rfind(b"\n") + 1]
        self._offset += len(text)
        return [
            f"{self._name} | {line}"
            for line in text.decode("utf-8", "replace").splitlines()
            if self._is_of_warning(line)
        ]

    def _is_of_warning(self, line: str) -> bool:
        if _RECORD.match(line):
            self._in_warning = _WARNING.match(line) is not None
        return self._in_warning
