"""Names that messages of Celery's queue carry, known to those who send and to the tick."""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Callable
from typing import Any, Final

from kombu.compression import get_encoder

TASK_NAME: Final = "postbacks.send_postback"

#: Version of the layout of messages, and the header that carries it. A message without the header, as other clients
#: send it, is of version 1. The version grows only when a reader of the one before would misread a message.
SCHEMA: Final = 1
SCHEMA_HEADER: Final = "postbacks-schema"

#: Celery's own tasks that call another task as a function, once an item: their messages are no postbacks.
MAPS: Final = frozenset({"celery.map", "celery.starmap", "celery.chunks"})

#: Decompressors by kombu's names for the result of ``compression=`` (kombu 5.7, ``kombu/compression.py``).
DECOMPRESSORS: Final[dict[str, Callable[[], Any]]] = {
    "application/x-gzip": zlib.decompressobj,
    "application/x-bz2": bz2.BZ2Decompressor,
}


def can_unpack(compression: object) -> bool:
    """Tell whether a body compressed in this way can be read; ``compression`` is any of kombu's names for it."""
    try:
        return get_encoder(compression)[1] in DECOMPRESSORS
    except (KeyError, TypeError):
        return False
