"""The broker URL: redis-py and kombu make the same server, database, user and TLS of it, or it is refused."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from helpers import environment
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection
from kombu.transport.redis import Channel
from pages import cells

from postbacks.broker import client, sentinel
from postbacks.broker import url as broker_url
from postbacks.errors import BadSetting
from postbacks.settings import load

#: Which server, which part of it, as whom, and how the way there is protected.
ARGUMENTS = (
    "host", "port", "path", "db", "username", "password", "client_name",
    "ssl_cert_reqs", "ssl_check_hostname", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile",
)  # fmt: skip
KINDS = (redis.UnixDomainSocketConnection, redis.SSLConnection, redis.Connection)


def plain(kind: type, arguments: dict) -> dict:
    """A connection's arguments in one spelling, without those that are empty."""
    shown = {name: arguments[name] for name in ARGUMENTS if arguments.get(name) not in {None, ""}}
    if "ssl_cert_reqs" in shown:  # "none", or ssl.CERT_NONE
        shown["ssl_cert_reqs"] = getattr(shown["ssl_cert_reqs"], "name", shown["ssl_cert_reqs"]).lower()
        shown["ssl_cert_reqs"] = shown["ssl_cert_reqs"].removeprefix("cert_")
    return shown | {"kind": next(known for known in KINDS if issubclass(kind, known))}


def of_redis(url: str) -> dict:
    """The arguments with which redis-py connects."""
    pool = client.client_for(url, 1.0).connection_pool
    return plain(pool.connection_class, pool.connection_kwargs)


def of_kombu(url: str) -> dict:
    """The arguments with which kombu connects, by its own function."""
    with Connection(client.kombu_url(url)) as connection:
        channel = object.__new__(Channel)  # the constructor would connect
        channel.connection = connection.transport
        vars(channel).update(client.kombu_options(url, 1.0))
        arguments = channel._connparams()
    return plain(arguments["connection_class"], arguments)


def setting(url: str) -> str:
    """The URL as the settings take it."""
    with environment(POSTBACKS_BROKER_URL=url):
        return load().broker_url


TCP = {"host": "h", "port": 6379, "db": 0, "kind": redis.Connection}
TLS = {**TCP, "kind": redis.SSLConnection, "ssl_cert_reqs": "required", "ssl_check_hostname": True}
UNIX = {"path": "/run/r.sock", "db": 0, "kind": redis.UnixDomainSocketConnection}
UNVERIFIED = {"ssl_cert_reqs": "none", "ssl_check_hostname": False}


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("redis://h", TCP),
        ("redis://h/", TCP),
        ("redis://h/5", {**TCP, "db": 5}),
        ("redis://h?db=5", {**TCP, "db": 5}),
        ("redis://h/5?db=5&virtual_host=05", {**TCP, "db": 5}),
        ("redis://h?virtual_host=5", {**TCP, "db": 5}),
        ("redis://", {**TCP, "host": "127.0.0.1"}),
        ("redis:///2", {**TCP, "host": "127.0.0.1", "db": 2}),
        ("redis://:7000", {**TCP, "host": "127.0.0.1", "port": 7000}),
        ("redis://h:/3", {**TCP, "db": 3}),
        ("REDIS://H:65535/0\n", {**TCP, "port": 65535}),
        ("redis://redis_1.internal-net:1", {**TCP, "host": "redis_1.internal-net", "port": 1}),
        ("redis://[::1]", {**TCP, "host": "::1"}),
        ("redis://:p@[2001:DB8::7]:7000/1", {**TCP, "host": "2001:db8::7", "port": 7000, "db": 1, "password": "p"}),
        ("redis://user@h", {**TCP, "username": "user"}),
        ("redis://user:p%40ss%2F%3Fword%3B%25@h", {**TCP, "username": "user", "password": "p@ss/?word;%"}),
        ("redis://h?username=us+er&password=p%26w%40", {**TCP, "username": "us er", "password": "p&w@"}),
        ("redis://h?client_name=shop", {**TCP, "client_name": "shop"}),
        ("rediss://h", TLS),
        ("rediss://h?ssl_cert_reqs=required", TLS),
        ("rediss://h?ssl_cert_reqs=CERT_REQUIRED", TLS),
        ("rediss://h?ssl_cert_reqs=optional", {**TLS, "ssl_cert_reqs": "optional"}),
        ("rediss://h?ssl_cert_reqs=CERT_OPTIONAL", {**TLS, "ssl_cert_reqs": "optional"}),
        ("rediss://h?ssl_cert_reqs=none", {**TLS, **UNVERIFIED}),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", {**TLS, **UNVERIFIED}),
        ("rediss://h?ssl_check_hostname=False", {**TLS, "ssl_check_hostname": False}),
        ("rediss://h?ssl_check_hostname=0", {**TLS, "ssl_check_hostname": False}),
        ("rediss://h?ssl_check_hostname=true", TLS),
        (f"rediss://h?ssl_ca_certs={__file__}", {**TLS, "ssl_ca_certs": __file__}),
        (
            f"rediss://h/2?ssl_certfile={__file__}&ssl_keyfile={__file__}&client_name=shop",
            {**TLS, "db": 2, "ssl_certfile": __file__, "ssl_keyfile": __file__, "client_name": "shop"},
        ),
        ("unix:///run/r.sock", UNIX),
        ("unix:///run/r.sock?db=4", {**UNIX, "db": 4}),
        ("unix:///run/r.sock?virtual_host=4", {**UNIX, "db": 4}),
        ("redis+socket:///run/r.sock?virtual_host=4", {**UNIX, "db": 4}),
        ("redis+socket:///run/r.sock?db=4&client_name=shop", {**UNIX, "db": 4, "client_name": "shop"}),
        ("unix://user:p%3Aw@/run/a%20b%40c", {**UNIX, "path": "/run/a b@c", "username": "user", "password": "p:w"}),
        ("unix:///run/r.sock?password=p%23w", {**UNIX, "password": "p#w"}),
    ],
)  # fmt: skip
def test_redis_py_and_kombu_take_a_url_for_the_same_server_with_the_same_options(url, arguments):
    """Also where each of them alone would take it for something else, or for nothing."""
    assert of_redis(setting(url)) == arguments
    assert of_kombu(setting(url)) == arguments


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)


@given(
    host=st.sampled_from(["", "h", "10.1.2.3", "[::1]"]),
    port=st.none() | st.integers(1, 65535),
    db=st.none() | st.integers(0, 99),
    in_path=st.booleans(),
    user=WORDS,
    password=WORDS,
    client_name=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20),
    socket=st.none() | WORDS.map(lambda word: f"/run/{word}"),
)
def test_any_user_password_and_path_arrive_in_both_as_they_were_encoded(
    host, port, db, in_path, user, password, client_name, socket
):
    """Whatever stands in them, if it is percent-encoded."""
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@"
    options = f"client_name={quote(client_name, safe='')}" if client_name else ""
    wanted = {"db": db or 0, "username": user, "password": password, "client_name": client_name}
    if socket:
        url = f"unix://{login}{quote(socket)}?{options}"
        wanted |= {"path": socket, "kind": redis.UnixDomainSocketConnection}
        in_path = False
    else:
        url = f"redis://{login}{host}{f':{port}' if port else ''}{f'/{db or 0}' if in_path else ''}?{options}"
        wanted |= {"host": host.strip("[]") or "127.0.0.1", "port": port or 6379, "kind": redis.Connection}
    if not in_path and db is not None:
        url += f"&db={db}"
    wanted = {name: value for name, value in wanted.items() if value != ""}
    assert of_redis(url) == wanted
    assert of_kombu(url) == wanted


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "it is no URL of a broker; write redis://"),
        ("h:6379", "it is no URL of a broker"),
        ("redis:h", "it is no URL of a broker"),
        ("amqp://:SECRET@h", "it is no URL of a broker"),
        ("redis://:SECRET@h:0", "a port is 1 to 65535"),
        ("redis://:SECRET@h:65536", "a port is 1 to 65535"),
        ("redis://:SECRET@h:port", "a port is 1 to 65535"),
        ("redis://h:SECRET/0", "a port is 1 to 65535"),
        ("redis://user:SECRET:6379/0", "a port is 1 to 65535"),
        ("redis://:SECRET@::1", "an IPv6 address in brackets"),
        ("redis://:[SECRET@h", "encode what is no letter or digit"),
        ("redis://:SEC℀RET@h", "encode what is no letter or digit"),
        ("redis://:SECRET%FF@h", "encode what is no letter or digit"),
        ("redis://:SEC#RET@h", "encode what is no letter or digit"),
        ("redis://:SEC?SECRET@h", "encode what is no letter or digit"),
        ("redis://:1/SECRET@h", "encode what is no letter or digit"),
        ("redis://:SEC RET@h", "encode what is no letter or digit"),
        ("redis://:SECRET@a;redis://:SECRET@b", "several servers are named with sentinel://"),
        ("redis://a,b", "behind the // stands no host:port"),
        ("redis://h/first", "the number of the database is none"),
        ("redis://h/0/", "the number of the database is none"),
        ("redis://h?db=-1", "the number of the database is none"),
        ("redis://h/5?db=4", "it names several databases (4 and 5); write one"),
        ("redis://h?db=5&virtual_host=4", "it names several databases"),
        ("redis://h?db=5&db=5", "db stands there twice"),
        ("redis://h?db", "db has no value"),
        ("redis://h?socket_timeout=5", "'socket_timeout' is no option of it: POSTBACKS_BROKER_TIMEOUT_S sets it"),
        ("redis://h?socket_connect_timeout=5", "POSTBACKS_BROKER_TIMEOUT_S sets it"),
        ("redis://h?health_check_interval=5", "POSTBACKS_BROKER_TIMEOUT_S sets it"),
        ("redis://h?retry_on_timeout=true", "must not be sent twice"),
        ("redis://h?max_connections=5", "'max_connections' is no option of it"),
        ("redis://h?protocol=3", "kombu has no such option"),
        ("redis://h?decode_responses=1", "'decode_responses' is no option of it; there are client_name, db"),
        ("redis://h?SECRET%40=x", "a word behind the ? is no option of it"),
        ("redis://user:SECRET@h?username=x", "username stands before the @ and behind the ?"),
        ("redis://:SECRET@h?password=SECRET", "password stands before the @ and behind the ?"),
        ("redis://h?client_name=a%20b", "client_name is made of printable ASCII characters and no space"),
        ("redis://h?ssl_cert_reqs=none", "'ssl_cert_reqs' is an option of rediss:// alone"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs is none, optional or required"),
        ("rediss://h?ssl_check_hostname=maybe", "ssl_check_hostname is true or false"),
        ("rediss://h?ssl_cert_reqs=none&ssl_check_hostname=true", "needs a certificate"),
        ("rediss://h?ssl_ca_certs=/no/such.pem", "ssl_ca_certs: there is no file '/no/such.pem'"),
        (f"rediss://h?ssl_keyfile={__file__}", "ssl_keyfile needs ssl_certfile beside it"),
        ("rediss://h?ssl_min_version=771", "'ssl_min_version' is no option of it"),
        ("unix://run/r.sock", "a socket's URL has three slashes and no host"),
        ("unix://", "a socket's URL has three slashes and no host"),
        ("redis+socket://h/run/r.sock", "a socket's URL has three slashes and no host"),
        ("sentinel://:SECRET@h/name?socket_timeout=5", "POSTBACKS_BROKER_TIMEOUT_S sets it"),
    ],
)  # fmt: skip
def test_a_url_that_the_two_would_not_take_alike_is_refused_where_settings_are_read(url, words):
    """With the option or part that is at fault, what to write instead, and without the password."""
    with pytest.raises(BadSetting) as refused:
        setting(url)
    sentence = str(refused.value)
    assert words in sentence
    assert sentence.startswith("POSTBACKS_BROKER_URL=(not shown): ")
    assert sentence.endswith("Correct the environment and start again.")
    assert "SECRET" not in sentence
    assert "RET@" not in sentence


@given(st.text(max_size=40), st.sampled_from(["redis", "rediss", "unix", "redis+socket"]))
def test_any_text_behind_the_scheme_is_taken_alike_by_both_or_refused(text, scheme):
    """Nothing else comes of it: no other error, and no URL that only one of them takes."""
    url = f"{scheme}://{text}"
    try:
        broker_url.parse(url)
    except ValueError:
        return
    assert of_redis(url) == of_kombu(url)


def test_every_option_is_documented_and_every_documented_option_exists():
    """docs/settings.md against the reader, in both directions, each option for the schemes that have it."""
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
    section = page.partition("## The broker's URL")[2].partition("\n## ")[0]
    rows = [cells(line) for line in section.splitlines() if line.startswith("| `")]
    documented = {(name, row[1]) for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    known = {(name, "all") for name in broker_url.OPTIONS}
    known |= {(name, "`rediss://`") for name in broker_url.TLS_OPTIONS}
    assert documented == known


@pytest.mark.parametrize(
    "url",
    [
        "redis://a..b", "redis://.a", "redis://a..", f"redis://{'a' * 64}", f"redis://{'a.' * 127}a",
        "redis://:\udc80@h", "redis://h?password=\udc80", "unix:///a%00b", "sentinel://a..b/NAME",
        f"sentinel://h,{'a' * 64}/NAME", "sentinel://:%80@h/NAME", "sentinel://h/\udc80",
    ],
    ids=ascii,
)  # fmt: skip
def test_what_no_socket_could_be_asked_for_is_refused(url):
    """Python's sockets and encoders raise for these what is no error of a network, at the first connection."""
    with pytest.raises(BadSetting, match="POSTBACKS_BROKER_URL=") as refused:
        setting(url)
    assert "should not" not in str(refused.value)


_PARTS = st.sampled_from(
    ["redis://", "rediss://", "unix://", "sentinel://", ":", "@", "/", "?", "db=", "0", "h", ".", ",", "[", "]", "%", "%ff",
     "%00", "\udc80", "\ud800", "\u202e", "#", "&", "::1", "NAME", "ssl_ca_certs=", " ", "ß"]
)  # fmt: skip


@given(st.lists(_PARTS | st.text(max_size=3), max_size=12).map("".join))
def test_any_text_is_a_url_of_a_broker_or_refused_with_a_sentence(text):
    """And what is taken can be written for redis-py, kombu and people."""
    assert isinstance(broker_url.redacted_broker_url(text), str)
    with suppress(ValueError):
        assert client.client_for.__wrapped__(text, 0.1) is not None
        assert client.kombu_url(text).encode()
        assert client.kombu_options(text, 0.1) is not None
    try:
        (sentinel if sentinel.is_sentinel(text) else broker_url).parse(text)
    except UnicodeError as error:
        pytest.fail(f"{error} is no sentence")
    except ValueError:
        return


@pytest.mark.parametrize("url", ["http://h:0", "http://h:65536", "http://h:99999"])
def test_a_proxy_with_a_port_that_is_none_is_refused(url):
    """libcurl would say it at each POST."""
    with environment(POSTBACKS_PROXY_URL=url), pytest.raises(BadSetting, match="POSTBACKS_PROXY_URL"):
        load()
