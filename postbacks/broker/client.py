"""Clients of the broker: redis-py's and kombu's, from the broker URL."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from postbacks.broker import sentinel
from postbacks.broker import url as broker_url
from postbacks.broker.errors import broker_errors
from postbacks.settings import load


def kombu_url(url: str) -> str:
    """Write the broker URL as kombu reads it."""
    return sentinel.kombu_url(url) if sentinel.is_sentinel(url) else broker_url.parse(url).kombu_url()


def kombu_options(url: str, timeout_s: float) -> dict[str, Any]:
    """Return the transport options that kombu needs beside its URL."""
    if sentinel.is_sentinel(url):
        return sentinel.kombu_options(url, timeout_s)
    return broker_url.parse(url).kombu_options()


def text(reply: bytes) -> str:
    """Decode what the broker sent; bytes that are no text become marks."""
    return reply.decode("utf-8", "replace")


@lru_cache(maxsize=8)
def client_for(url: str, timeout_s: float) -> redis.Redis:
    """Return the client of a URL, one a process; its connections are pooled and safe to share between threads."""
    with broker_errors(url):
        if sentinel.is_sentinel(url):
            return sentinel.client(url, timeout_s)
        return redis.Redis(
            **broker_url.parse(url).redis_arguments(),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # A script must not be sent twice behind our back; who calls decides.
            retry=Retry(NoBackoff(), 0),
        )


def client() -> redis.Redis:
    """Return the client of this process's settings."""
    settings = load()
    return client_for(settings.broker_url, settings.broker_timeout_s)
