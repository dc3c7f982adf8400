"""Stack of a test session: a real broker, worker and beat, for the few tests that want the whole way."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from postbacks import keys
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.stack import LocalStack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from postbacks.accounts import Account

#: Variables of the stack, under those of the tests: receivers are on loopback, and nobody waits 5 minutes for a resend.
_DEFAULTS: Final = {
    "POSTBACKS_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
    "POSTBACKS_RETRY_COUNTDOWN_S": "1",
}
#: What the stack's processes say of themselves, and a test before has not made.
_KEPT: Final = {
    key.encode()
    for key in (
        keys.WORKERS,
        keys.BEATS,
        keys.URL_POLICIES,
        keys.TICKS,
        keys.LAST_TICK,
        keys.CLAIMERS,
        keys.PRIVACY_KEY,
    )
}


class EmbeddedStack:
    """A broker, a worker and a beat of one's own, in processes that end with this one.

    Args:
        log_dir: directory of ``worker1.log`` and ``beat1.log``.
        environment: variables of the processes, over the stack's own: receivers on loopback are allowed, and a resend
            comes after a second. No setting of this process's environment counts.

    Attributes:
        log_dir: as given.
        environment: variables with which this process speaks to the stack, those of the broker among them; once started.
    """

    def __init__(self, log_dir: Path, environment: Mapping[str, str] = {}) -> None:
        self.log_dir = log_dir
        self.environment = {**_DEFAULTS, **environment}
        self._broker = EmbeddedBroker()
        self._running = ExitStack()

    def start(self) -> None:
        """Start the processes and wait until each is ready.

        Raises:
            PostbacksError: one of them cannot start; says why.
        """
        with _settings(self.environment), ExitStack() as started:
            started.enter_context(self._broker)
            self.environment["POSTBACKS_BROKER_URL"] = self._broker.url
            started.enter_context(LocalStack(self._broker, env=self.environment, log_dir=self.log_dir))
            self._running = started.pop_all()

    def stop(self) -> None:
        """Let the worker finish what is open, then stop the processes."""
        self._running.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def broker_url(self) -> str:
        """URL of the broker."""
        return self._broker.url

    def set_account(self, name: str, **settings: Any) -> Account:
        """Store an account: ``set_account("acme", url=postback_receiver.url())``, with the settings of ``Account``.

        Raises:
            InvalidAccount: names each setting at fault.
        """
        from postbacks import accounts  # noqa: PLC0415 - a stack with a store of its own sets none
        from postbacks.operate.accounts import publish  # noqa: PLC0415

        account = accounts.make_account(name, **settings)
        accounts.redis_accounts().set(account)
        publish(account.name, account)
        return account

    @contextmanager
    def in_use(self) -> Iterator[Self]:
        """Empty the broker, and let this process send to it while the context lasts."""
        self._empty()
        with _settings(self.environment), _celery_configured_for(self._broker.url):
            yield self

    def _empty(self) -> None:
        """Remove what tests have made; kombu's bindings stay, without which the worker would hear no wake-up."""
        with self._broker.client() as client:
            made = [
                key
                for key in client.scan_iter(count=1000)
                if not key.startswith(b"_kombu") and key not in _KEPT
            ]
            if made:
                client.unlink(*made)


@contextmanager
def _settings(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process, take away its other settings, and let them be read anew.

    The other ones may name the accounts or the pager of production.
    """
    from postbacks import settings  # noqa: PLC0415 - this module is loaded without them

    names = {f"POSTBACKS_{name.upper()}" for name in settings.Settings.model_fields}
    others = {name for name in os.environ if name.upper() in names}
    before = {name: os.environ.get(name) for name in others | variables.keys()}
    for name in others:
        del os.environ[name]
    os.environ.update(variables)
    settings.load.cache_clear()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        settings.load.cache_clear()


@contextmanager
def _celery_configured_for(broker_url: str) -> Iterator[None]:
    """Let Celery's own ways to the broker (groups, control) lead to another one than its configuration has read."""
    from postbacks.app import app  # noqa: PLC0415

    changes = app.conf.changes
    before = dict(changes)
    changes["broker_url"] = broker_url
    app.close_connections()
    try:
        yield
    finally:
        changes.clear()
        changes.update(before)
        app.close_connections()
