"""Errors of the broker as sentences: what redis-py and kombu raise, what it means and what to do."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis
from redis.sentinel import MasterNotFoundError

from postbacks.broker import sentinel
from postbacks.broker import url as broker_url
from postbacks.broker.url import redacted_broker_url
from postbacks.errors import BrokerUnfit, BrokerUnreachable
from postbacks.settings import Settings, load

#: The URL where none is set: the broker of ``postbacks up``, most likely.
DEFAULT_URL: Final = str(Settings.model_fields["broker_url"].default)
#: What a sentence says of a broker that has no memory left.
FULL: Final = "is full (maxmemory reached)"

_UNKNOWN_AUTHORITY: Final = "has a certificate of an unknown authority; add ?ssl_ca_certs=FILE, its certificate, to POSTBACKS_BROKER_URL"
_LOCKED: Final = "wants a password; put it into POSTBACKS_BROKER_URL (redis://:password@host)"
#: Words of the server's error, its class here, and what is said instead. redis-py takes codes that it knows (READONLY) off
#: the text.
_RESPONSES: Final = (
    (
        "previous master is now a slave",
        BrokerUnreachable,
        "is changing its primary (a failover); try again in a moment",
    ),
    (
        "NOREPLICAS",
        BrokerUnfit,
        "has fewer replicas in step than its min-replicas-to-write wants; see its replicas",
    ),
    (
        "enough good replicas",
        BrokerUnfit,
        "has fewer replicas in step than its min-replicas-to-write wants; see its replicas",
    ),
    (
        "Link with MASTER is down",
        BrokerUnfit,
        "is a replica that has lost its primary; point POSTBACKS_BROKER_URL at the primary",
    ),
    (
        "read only replica",
        BrokerUnfit,
        "is read-only (a replica?); point POSTBACKS_BROKER_URL at the primary",
    ),
    (
        "> 'maxmemory'",
        BrokerUnfit,
        f"{FULL}; give it more memory",
    ),
    # OpenSSL's words about the broker's certificate.
    (
        "Key Identifier",
        BrokerUnreachable,
        "has a certificate without the key identifiers that Python 3.13 asks for; have it issued anew (docs/settings.md#tls)",
    ),
    (
        "include key usage",
        BrokerUnreachable,
        "has a certificate whose authority lacks the key usage that Python 3.13 asks for; make it anew (docs/settings.md#tls)",
    ),
    ("certificate has expired", BrokerUnreachable, "has a certificate that has expired; renew it"),
    (
        "certificate is not valid for",
        BrokerUnreachable,
        "has a certificate for another name; name the host in POSTBACKS_BROKER_URL as the certificate does",
    ),
    ("self-signed certificate", BrokerUnreachable, _UNKNOWN_AUTHORITY),
    ("local issuer certificate", BrokerUnreachable, _UNKNOWN_AUTHORITY),
    ("MISCONF", BrokerUnfit, "cannot write to its disk; make room there (df -h), its log has the reason"),
    ("loading the dataset", BrokerUnreachable, "is still loading its data; try again in a moment"),
    (
        "invalid username-password",
        BrokerUnfit,
        "refused the password in POSTBACKS_BROKER_URL, or has switched that user off",
    ),
    (
        "without any password configured",
        BrokerUnfit,
        "has no password, and POSTBACKS_BROKER_URL has one; set it there or take it out of the URL",
    ),
    ("Authentication required", BrokerUnfit, _LOCKED),
    ("already authenticated", BrokerUnfit, _LOCKED),
    ("DB index", BrokerUnfit, "has no database of that number; correct POSTBACKS_BROKER_URL"),
    ("WRONGTYPE", BrokerUnfit, "holds other data under a key of postbacks; use a database of its own"),
    ("unknown command", BrokerUnfit, "is too old: Redis 7.0 or Valkey 8.0 is needed"),
)


#: Words of an ACL's refusal, what the user may not do, and the rule that allows it. The words are those of Redis 6 and 7.0, of
#: Redis 7.2 and Valkey, and of both in scripts. A server names no key but in ``ACL LOG``, and 7.0 no command of a script.
_REFUSALS: Final = (
    (r"no permissions to run the '([^']+)' command", "run {name}", "allow +{name}"),
    # What redis-py raises at the end of a pipeline whose first command was refused.
    (r"EXEC without MULTI", "run multi", "allow +multi"),
    (r"can't run this command or subcommand", "run a command of a script", "`ACL LOG` there names it"),
    (r"no permissions to access the '([^']+)' key", "use the key {name}", "allow ~{name}"),
    (
        r"no permissions to access (?:a key|one of the keys)|can't access at least one of the keys",
        "use a key",
        "allow ~postbacks:* and what else this process uses, `ACL LOG` there names it",
    ),
    (r"no permissions to access the '([^']+)' channel", "use the channel {name}", "allow &{name}"),
    (
        r"no permissions to access (?:a channel|one of the channels)|can't publish to the channel",
        "use a channel",
        "allow &/0.postbacks.control.pidbox and the others of this process (0: the database)",
    ),
    (r"no permissions to access database", "use this database", "allow alldbs, or the number in the URL"),
    (r"no permissions", "do what postbacks needs", "`ACL LOG` there names it"),
)


@contextmanager
def broker_errors(url: str | None = None) -> Iterator[None]:
    """Turn what redis-py and kombu raise into one sentence.

    Raises:
        BrokerUnreachable: it does not answer.
        BrokerUnfit: it answers with an error that no retry cures.
    """
    try:
        yield
    except _client_errors() as error:
        raise _explained(error, url or load().broker_url) from error


def _client_errors() -> tuple[type[Exception], ...]:
    """Return what a broker's client may raise; kombu's where kombu is loaded, since a health check does without."""
    kombu = sys.modules.get("kombu.exceptions")
    return (redis.RedisError, OSError, *([kombu.OperationalError] if kombu else []))


def missing_right(error: Exception, url: str | None = None) -> str | None:
    """Say which right the URL's user lacks and how it is given; None for any other error."""
    url = url or load().broker_url
    login = sentinel.parse(url).login if sentinel.is_sentinel(url) else broker_url.parse(url).login
    for words, what, rule in _REFUSALS:
        if refused := re.search(words, str(error), re.IGNORECASE):
            sentence = (
                f"The broker at {redacted_broker_url(url)} does not let its user {login.get('username', 'default')!r} {what}: "
                f"{rule}; the rules for each kind of process are in docs/settings.md (Rights on the broker)."
            )
            return sentence.replace("{name}", refused[1] if refused.re.groups else "")
    return None


def _explained(error: Exception, url: str) -> BrokerUnfit | BrokerUnreachable:
    safe_url, text = redacted_broker_url(url), str(error)
    if isinstance(error, MasterNotFoundError):
        return BrokerUnreachable(f"The broker at {safe_url} has no primary to talk to: {text.rstrip('.')}.")
    if sentence := missing_right(error, url):
        return BrokerUnfit(sentence)
    for mark, kind, advice in _RESPONSES:
        if mark in text:
            from_up = ", as in the one that `postbacks up` prints" * (
                advice is _LOCKED and url == DEFAULT_URL
            )
            return kind(f"The broker at {safe_url} {advice}{from_up}.")
    if isinstance(error, redis.ResponseError):
        return BrokerUnfit(f"The broker at {safe_url} answered with an error: {text.rstrip('.')}.")
    start = "start it (`postbacks up` starts one)" if url == DEFAULT_URL else "start it"
    return BrokerUnreachable(
        f"The broker at {safe_url} does not answer ({text.rstrip('.') or type(error).__name__}); "
        f"{start} or correct POSTBACKS_BROKER_URL."
    )
