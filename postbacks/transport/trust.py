"""Trust store of the system."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from typing import Final

import certifi

#: Trust stores of Debian and Alpine, of Red Hat, and of macOS and BSD.
_TRUST_STORES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


@lru_cache(maxsize=1)
def system_trust_store() -> str:
    """Return the file of the certificates that this system trusts; certifi's where it has none."""
    paths = ssl.get_default_verify_paths()
    candidates = (os.environ.get(paths.openssl_cafile_env), paths.cafile, *_TRUST_STORES)
    return next((path for path in candidates if path and os.path.isfile(path)), certifi.where())  # noqa: PTH113
