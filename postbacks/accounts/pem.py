"""PEM texts of an account, checked when they are set and not at the first POST."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from postbacks.errors import InvalidAccount


def check_certificates(text: str, field: str) -> None:
    """Check that a field holds one or more certificates.

    Raises:
        InvalidAccount: it does not; names the field.
    """
    try:
        x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise InvalidAccount(f"{field} holds no PEM certificate.") from None


def check_private_key(text: str, certificate: str, field: str) -> None:
    """Check that a field holds the private key of the (first) certificate, with no password.

    Raises:
        InvalidAccount: it does not; names the field.
    """
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except TypeError:
        raise InvalidAccount(
            f"{field} has a password, which workers cannot type: take it off (openssl pkey). "
            "The key is encrypted in the store."
        ) from None
    except ValueError:
        raise InvalidAccount(f"{field} holds no PEM private key.") from None
    if key.public_key() != x509.load_pem_x509_certificates(certificate.encode())[0].public_key():
        raise InvalidAccount(f"{field} is not the key of the client certificate.")
