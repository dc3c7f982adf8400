"""Answers of a broker that refuses, in the words of each server, as sentences that say what to allow or to correct."""

from __future__ import annotations

import pytest
import redis
from helpers import environment
from kombu.exceptions import OperationalError

from postbacks.broker.errors import DEFAULT_URL, broker_errors
from postbacks.errors import BrokerError, BrokerUnfit

URL = "redis://shop:SECRET@h/0"
A_KEY = "use a key: allow ~postbacks:* and what else this process uses, `ACL LOG` there names it; "
A_CHANNEL = "use a channel: allow &/0.postbacks.control.pidbox and the others of this process"
A_COMMAND = "run a command of a script: `ACL LOG` there names it; "


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # Redis 6.2, 7.0, 7.2 and Valkey; a subcommand; inside a pipeline and a script
        ("this user has no permissions to run the 'lrange' command or its subcommand", "run lrange: allow +lrange; "),
        ("this user has no permissions to run the 'lrange' command", "run lrange: allow +lrange; "),
        ("User shop has no permissions to run the 'lrange' command", "run lrange: allow +lrange; "),
        ("User shop has no permissions to run the 'script|load' command", "run script|load: allow +script|load; "),
        (
            "Command # 1 (LLEN postbacks) of pipeline caused error: User shop has no permissions to run the 'llen' command",
            "run llen: allow +llen; ",
        ),
        (
            "ACL failure in script: User shop has no permissions to run the 'zpopmin' command script: 5f, on @user_script:9.",
            "run zpopmin: allow +zpopmin; ",
        ),
        ("EXEC without MULTI", "run multi: allow +multi; "),
        ("The user executing the script can't run this command or subcommand script: 5f, on @user_script:9.", A_COMMAND),
        ("this user has no permissions to access one of the keys used as arguments", A_KEY),
        ("No permissions to access a key", A_KEY),
        ("ACL failure in script: No permissions to access a key script: 5f, on @user_script:9.", A_KEY),
        ("The user executing the script can't access at least one of the keys mentioned in the command arguments", A_KEY),
        ("User shop has no permissions to access the 'postbacks:dead' key", "use the key postbacks:dead: allow ~postbacks:dead; "),
        ("this user has no permissions to access one of the channels used as arguments", A_CHANNEL),
        ("No permissions to access a channel", A_CHANNEL),
        ("The user executing the script can't publish to the channel mentioned in the command", A_CHANNEL),
        ("User shop has no permissions to access the '/0.x' channel", "use the channel /0.x: allow &/0.x; "),
        ("No permissions to access database", "use this database: allow alldbs, or the number in the URL; "),
        ("User shop has no permissions to access database 5", "use this database: allow alldbs"),
        ("this user has no permissions for something that is yet to be invented", "do what postbacks needs: `ACL LOG`"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [redis.exceptions.NoPermissionError, redis.ResponseError, OperationalError])
def test_a_right_that_is_missing_is_named_with_its_user_and_what_to_allow(kind, text, words):
    """However the server writes it, and whether redis-py or kombu raises it."""
    with pytest.raises(BrokerUnfit) as refused, broker_errors(URL):
        raise kind(text)
    sentence = str(refused.value)
    assert sentence.startswith(f"The broker at redis://shop:***@h/0 does not let its user 'shop' {words}")
    assert sentence.endswith(
        "the rules for each kind of process are in docs/settings.md (Rights on the broker)."
    )
    assert "SECRET" not in sentence


def test_who_has_no_name_is_the_brokers_default_user():
    """Of the process's own broker, where no other is named; Sentinel's URL has its user in the same place."""
    error = redis.exceptions.NoPermissionError("User default has no permissions to run the 'info' command")
    for url, user in (("redis://h", "default"), ("sentinel://shop:SECRET@h/name", "shop")):
        with (
            environment(POSTBACKS_BROKER_URL=url),
            pytest.raises(BrokerUnfit, match=f"user '{user}' run info: allow"),
            broker_errors(),
        ):
            raise error


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("invalid username-password pair or user is disabled.", "refused the password in POSTBACKS_BROKER_URL, or has"),
        ("Authentication required.", "wants a password"),
        ("HELLO must be called with the client already authenticated, otherwise …", "wants a password"),
        (
            "AUTH <password> called without any password configured for the default user.",
            "has no password, and POSTBACKS_BROKER_URL has one",
        ),
    ],
)  # fmt: skip
def test_a_login_that_is_refused_says_what_to_correct(text, words):
    """WRONGPASS, NOAUTH, and a password where there is none to give."""
    with pytest.raises(BrokerUnfit, match=words), broker_errors(URL):
        raise redis.AuthenticationError(text)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (redis.ConnectionError("Connection refused"), "(`postbacks up` starts one)"),
        (redis.AuthenticationError("Authentication required."), "as in the one that `postbacks up` prints"),
    ],
)
def test_postbacks_up_is_named_where_nobody_has_said_which_broker(error, words):
    """A broker of production is not what ``postbacks up`` starts."""
    for url, is_named in (
        (DEFAULT_URL, True),
        (URL, False),
        ("sentinel://h/name", False),
        ("redis://127.0.0.1:6390/0", False),
    ):
        with pytest.raises(BrokerError) as raised, broker_errors(url):
            raise error
        assert (words in str(raised.value)) == is_named
        assert ("`postbacks up`" in str(raised.value)) == is_named
