"""PEM files given on the command line: read and checked, so that a mistake shows now and not at the first POST."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

if TYPE_CHECKING:
    from typing import BinaryIO


def certificates(file: BinaryIO, option: str) -> str:
    """The certificates of a file, as its text."""
    text = _text(file, option)
    try:
        x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise click.UsageError(f"{option}: the file holds no PEM certificate.") from None
    return text


def private_key(file: BinaryIO, option: str, certificate: str) -> str:
    """The private key of a file, as its text; it must be that of the (first) certificate."""
    text = _text(file, option)
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except TypeError:
        raise click.UsageError(
            f"{option}: the key has a password; workers cannot type one (openssl pkey takes it off). "
            "It is encrypted in the store."
        ) from None
    except ValueError:
        raise click.UsageError(f"{option}: the file holds no PEM private key.") from None
    wanted = x509.load_pem_x509_certificates(certificate.encode())[0].public_key()
    if key.public_key() != wanted:
        raise click.UsageError(f"{option}: this is not the key of the client certificate.")
    return text


def _text(file: BinaryIO, option: str) -> str:
    try:
        return file.read(1024 * 1024).decode("ascii")
    except UnicodeDecodeError:
        raise click.UsageError(f"{option}: the file is no PEM text.") from None
