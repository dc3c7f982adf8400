"""Secrets at rest: sealed with a key that the broker does not have.

``POSTBACKS_SECRET_KEY`` holds one or more Fernet keys, comma-separated. The first seals, all open: to
change the key, put a new one in front, seal everything anew (``postbacks account secret reseal``),
then take the old one out.
"""

from __future__ import annotations

import base64
import secrets
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from postbacks.errors import BadSetting
from postbacks.settings import load

_SEALED: Final = "sealed:"
_HOW: Final = (
    "make one with `postbacks account secret new-key` and set it for whoever sets secrets and for the workers"
)


def new_key() -> str:
    """A fresh key for ``POSTBACKS_SECRET_KEY``."""
    return Fernet.generate_key().decode()


def new_secret() -> str:
    """A fresh signing secret, as Standard Webhooks writes one: ``whsec_`` and 32 random bytes."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def seal(text: str) -> str:
    """Encrypt a text for the store.

    Raises:
        BadSetting: there is no key, or it is none.
    """
    return _SEALED + _fernet().encrypt(text.encode()).decode()


def is_sealed(value: str) -> bool:
    """Whether a stored value is encrypted; an application's own store may keep plain ones."""
    return value.startswith(_SEALED)


def unseal(value: str) -> str:
    """Decrypt what ``seal`` made; a plain value is returned as it is.

    Raises:
        BadSetting: the key is missing, or is not the one it was sealed with.
    """
    if not is_sealed(value):
        return value
    try:
        return _fernet().decrypt(value.removeprefix(_SEALED).encode()).decode()
    except InvalidToken:
        raise BadSetting(
            "POSTBACKS_SECRET_KEY does not open an account's secret: it was sealed with another key. "
            "Add that key behind the present one, separated by a comma."
        ) from None


def _fernet() -> MultiFernet:
    keys = [key.strip() for key in load().secret_key.get_secret_value().split(",") if key.strip()]
    if not keys:
        raise BadSetting(f"POSTBACKS_SECRET_KEY is not set; {_HOW}.")
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        raise BadSetting(f"POSTBACKS_SECRET_KEY is no key; {_HOW}.") from None
