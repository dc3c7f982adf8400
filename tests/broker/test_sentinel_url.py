"""A sentinel:// URL: one form for operators, taken apart for redis-py and kombu."""

from __future__ import annotations

import pytest
from helpers import environment
from kombu import Connection

from postbacks.broker import client, sentinel
from postbacks.broker.url import redacted_broker_url
from postbacks.errors import BadSetting
from postbacks.settings import load

URL = "sentinel://user:p%40ss%2F@one:1,[::1]:2,three/my-name?db=4&sentinel_password=SECRET"


def test_a_url_is_taken_apart():
    """Hosts with and without ports, IPv6, encoded passwords, a database, the sentinels' own password."""
    url = sentinel.parse(URL)
    assert url.hosts == (("one", 1), ("::1", 2), ("three", 26379))
    assert (url.name, url.db) == ("my-name", 4)
    assert url.login == {"username": "user", "password": "p@ss/"}
    assert url.sentinel_login == {"password": "SECRET"}


def test_the_least_that_it_needs_is_a_host_and_a_name():
    """No password, database 0."""
    url = sentinel.parse("sentinel://one/x")
    assert (url.hosts, url.name, url.db, url.login, url.sentinel_login) == (
        (("one", 26379),), "x", 0, {}, {},
    )  # fmt: skip


def test_kombu_gets_every_sentinel_with_password_and_database():
    """The password is forgotten when kombu moves on to a sentinel whose URL has none."""
    with Connection(
        client.kombu_url(URL), transport_options=sentinel.kombu_options(URL, 3), transport="sentinel"
    ) as connection:
        assert len(connection.alt) == 3
        for one in connection.alt:
            connection.switch(one)
            assert (connection.userid, connection.password, connection.virtual_host) == ("user", "p@ss/", "4")
        assert connection.transport_options["master_name"] == "my-name"
        assert connection.transport_options["sentinel_kwargs"]["socket_timeout"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sentinel://", "sentinel 1 is no host:port"),
        ("sentinel://one,,two/x", "sentinel 2 is no host:port"),
        ("sentinel://:SECRET@one:port/x", "sentinel 1 is no host:port"),
        ("sentinel://one:70000/x", "sentinel 1 is no host:port"),
        ("sentinel://user:SECRET,one/x", "sentinel 1 is no host:port"),
        ("sentinel://:SECRET@one:26379", "the name of the primary is missing"),
        ("sentinel://one:26379/", "the name of the primary is missing"),
        ("sentinel://:SECRET@one/0;sentinel://:SECRET@two/0", "it has several URLs, as kombu writes it"),
        ("sentinel://one/x?db=first", "db is no number of a database"),
        ("sentinel://one/x?master=x", "'master' is no option of it"),
        ("redis+cluster://:SECRET@one/0", "Celery 5.7 cannot use Redis Cluster"),
    ],
)
def test_a_url_that_cannot_be_is_refused_before_anything_starts(url, words):
    """With the reason, and without the password."""
    with environment(POSTBACKS_BROKER_URL=url), pytest.raises(BadSetting) as refused:
        load()
    assert words in str(refused.value)
    assert "SECRET" not in str(refused.value)


def test_no_password_of_it_is_shown():
    """Neither the servers' nor the sentinels'."""
    shown = redacted_broker_url(
        "sentinel://:SECRET@one,two/x?sentinel_password=SECRET&db=1&sentinel_username=SECRET"
    )
    assert shown == "sentinel://:***@one,two/x?sentinel_password=***&db=1&sentinel_username=***"
    assert "SECRET" not in redacted_broker_url("sentinel://:SECRET@one:1/0;sentinel://:SECRET@two:1/0")
