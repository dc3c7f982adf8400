"""Key of the masks' suffixes: the setting's, or one that the broker keeps and that is made at its first use.

Whoever has the key and what is masked with it can try all numbers. So it protects lists that are passed on, and not the
broker from those who can read it. With another key a person has another suffix; nothing else depends on it. It is none
of the keys that seal secrets: their change is no reason to lose sight of who is who.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from postbacks import keys
from postbacks.broker.client import client as client_of_settings
from postbacks.broker.errors import broker_errors
from postbacks.errors import BrokerError
from postbacks.privacy.masker import KEYLESS, Masker
from postbacks.settings import load

if TYPE_CHECKING:
    import redis

    from postbacks.settings import Settings

#: Random bytes of a key that is made.
_KEY_BYTES = 32


def masker(client: redis.Redis | None = None, settings: Settings | None = None) -> Masker:
    """Return the masker of this installation.

    Where the broker cannot be used and no key is set, its masks have no suffix, and ``Masker.trouble`` says why.

    Args:
        client: of the broker; without it the one of the settings.
        settings: without them those of the process.
    """
    settings = settings or load()
    if key := settings.privacy_key.get_secret_value():
        return Masker(key.encode("utf-8", "surrogatepass"))
    try:
        return Masker(_key_of_broker(client or client_of_settings()))
    except BrokerError as error:
        return Masker(None, str(error))


def mask_why(text: str, client: redis.Redis | None = None) -> str:
    """Mask persons in a reason that somebody has typed; the key is asked for where there is any.

    Args:
        text: the reason.
        client: of the broker; without it the one of the settings.
    """
    return text if KEYLESS.why(text) == text else masker(client).why(text)


def _key_of_broker(client: redis.Redis) -> bytes:
    """Read the key, or make it; of several programs that make one at once, the first one's stays.

    Raises:
        BrokerError: the broker cannot be used.
    """
    key: Any = None
    with broker_errors():
        while key is None:
            key = client.get(keys.PRIVACY_KEY)
            if key is None:
                client.set(keys.PRIVACY_KEY, secrets.token_hex(_KEY_BYTES), nx=True)
    return bytes(key)
