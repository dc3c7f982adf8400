"""Variables that Kubernetes sets beside Services: the Service ``postbacks-metrics`` sets ``POSTBACKS_METRICS_PORT``."""

from __future__ import annotations

import re
from typing import Final

#: Address of a Service, which stands as ``<SERVICE>_PORT`` in every pod of its namespace.
_SERVICE_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://\S+", re.ASCII | re.IGNORECASE)
#: Names of a Service's other variables: ``<SERVICE>_SERVICE_HOST``, ``<SERVICE>_PORT_9464_TCP_ADDR`` and the like.
_SERVICE_NAME: Final = re.compile(
    r"POSTBACKS_\w*(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)"
)


def is_service_link(name: str, value: object) -> bool:
    """Tell whether Kubernetes may have set a variable to this value; no port or host looks like it."""
    return (
        name.endswith(("_PORT", "_HOST", "_ADDR"))
        and isinstance(value, str)
        and _SERVICE_ADDRESS.fullmatch(value) is not None
    )


def is_service_name(name: str) -> bool:
    """Tell whether a variable has a name that Kubernetes makes for a Service, and that no setting has."""
    return _SERVICE_NAME.fullmatch(name) is not None
