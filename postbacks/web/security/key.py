"""Key that signs sessions and links: the setting's, or one that the broker keeps and that is made at its first use.

Several web processes have the same one, so a session goes on with any of them.
"""

from __future__ import annotations

import secrets
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from itsdangerous import URLSafeTimedSerializer

from postbacks import keys
from postbacks.broker.client import client_for
from postbacks.broker.errors import broker_errors

if TYPE_CHECKING:
    from postbacks.settings import Settings

_KEY_BYTES: Final = 32
_OPTIONS: Final = {"key_derivation": "hmac", "digest_method": sha256}


class Signers:
    """Signers of one process; the key is asked for once.

    Args:
        settings: with the key, or with the broker that keeps one.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key = settings.web_key.get_secret_value()

    @property
    def is_ready(self) -> bool:
        """True where ``signer`` need not ask the broker."""
        return bool(self._key)

    def signer(self, purpose: str) -> URLSafeTimedSerializer:
        """Return the signer of a purpose: what it has signed is of no use for another one.

        Raises:
            BrokerError: the key is the broker's, which cannot be used.
        """
        if not self._key:
            self._key = _key_of_broker(self._settings)
        return URLSafeTimedSerializer(self._key, salt=f"postbacks.web.{purpose}", signer_kwargs=_OPTIONS)


def _key_of_broker(settings: Settings) -> str:
    """Read the key, or make it; of several processes that make one at once, the first one's stays."""
    client = client_for(settings.broker_url, settings.broker_timeout_s)
    key: Any = None
    with broker_errors():
        while key is None:
            key = client.get(keys.WEB_KEY)
            if key is None:
                client.set(keys.WEB_KEY, secrets.token_hex(_KEY_BYTES), nx=True)
    return bytes(key).decode()
