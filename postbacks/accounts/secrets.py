"""Encryption of secrets at rest: with a key that the broker does not have, for one field of one account.

``POSTBACKS_SECRET_KEY`` holds one or more keys (32 random bytes as base64), comma-separated. The first key encrypts, all
of them decrypt. To change the key, put a new one in front, encrypt everything anew (``postbacks account secret
reseal``), then take the old one out. Encrypted values begin with:

==============  ============================================================================================
``sealed:2:…``  AES-256-GCM. Account and field are its associated data: copied elsewhere, it does not decrypt
``sealed:…``    Fernet, as 0.1.0 encrypted: it decrypts wherever it stands, until it is encrypted anew
==============  ============================================================================================
"""

from __future__ import annotations

import base64
import secrets
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from postbacks.errors import BadSetting, InvalidAccount
from postbacks.settings import load

_SEALED: Final = "sealed:"
#: Begins like the older form, so that 0.1.0 takes it for a secret that its key does not open, and keeps the account's
#: postbacks. It would take any other text for a secret in clear, and sign with it.
_BOUND: Final = "sealed:2:"
_NONCE_BYTES: Final = 12
#: Begin of a signing secret, and bytes that it may have, by Standard Webhooks.
_BEGIN: Final = "whsec_"
_SECRET_BYTES: Final = (24, 64)
#: Fields of an account that are encrypted; all its signing secrets count as one field.
SealedField = Literal["secret", "client_key", "authorization"]
_HOW: Final = (
    "make one with `postbacks account secret new-key` and set it for whoever sets secrets and for the workers"
)


def new_key() -> str:
    """Make a key for ``POSTBACKS_SECRET_KEY``."""
    return Fernet.generate_key().decode()


def new_secret() -> str:
    """Make a signing secret in the form of Standard Webhooks: ``whsec_`` and 32 random bytes."""
    return _BEGIN + base64.b64encode(secrets.token_bytes(32)).decode()


def check_secret(text: str) -> str:
    """Return a signing secret that somebody else has made, in the form of Standard Webhooks.

    Raises:
        InvalidAccount: it has another form; does not quote it.
    """
    try:
        size = (
            len(base64.b64decode(text.removeprefix(_BEGIN), validate=True)) if text.startswith(_BEGIN) else 0
        )
    except ValueError:
        size = 0
    if not _SECRET_BYTES[0] <= size <= _SECRET_BYTES[1]:
        raise InvalidAccount(f"A signing secret is {_BEGIN} and 24 to 64 bytes as base64.")
    return text


def encrypt(text: str, account: str, field: SealedField) -> str:
    """Encrypt a text for the store, for this field of this account alone.

    Raises:
        BadSetting: ``POSTBACKS_SECRET_KEY`` is not set, or is no key.
    """
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = _cipher(_keys()[0]).encrypt(nonce, text.encode(), _binding(account, field))
    return _BOUND + base64.urlsafe_b64encode(nonce + sealed).decode()


def is_sealed(value: str) -> bool:
    """Tell whether a stored value is encrypted; an application's own store may keep values in clear."""
    return value.startswith(_SEALED)


def decrypt(value: str, account: str, field: SealedField) -> str:
    """Decrypt a text that was encrypted for this field of this account; return a text in clear as it is.

    Raises:
        BadSetting: the key is missing, or is another one; or the text was encrypted for another account or field.
    """
    if not is_sealed(value):
        return value
    for key in _keys():
        try:
            if not value.startswith(_BOUND):
                return Fernet(key).decrypt(value.removeprefix(_SEALED)).decode()
            sealed = base64.urlsafe_b64decode(value.removeprefix(_BOUND))
            nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
            return _cipher(key).decrypt(nonce, text, _binding(account, field)).decode()
        except (InvalidTag, InvalidToken, ValueError):
            continue
    raise BadSetting(
        "POSTBACKS_SECRET_KEY does not open an account's secret: it was sealed with another key, or for another "
        "account or field. Add that key behind the present one, separated by a comma."
    )


def _binding(account: str, field: SealedField) -> bytes:
    return f"{field}:{account}".encode()


def _cipher(key: str) -> AESGCM:
    """Return the AES-256-GCM cipher of a key; its own key is derived, so that no key serves two algorithms."""
    derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"postbacks sealed:2")
    return AESGCM(derive.derive(base64.urlsafe_b64decode(key)))


def _keys() -> list[str]:
    keys = [key.strip() for key in load().secret_key.get_secret_value().split(",") if key.strip()]
    if not keys:
        raise BadSetting(f"POSTBACKS_SECRET_KEY is not set; {_HOW}.")
    try:
        for key in keys:
            Fernet(key)
    except ValueError:
        raise BadSetting(f"POSTBACKS_SECRET_KEY is no key; {_HOW}.") from None
    return keys
