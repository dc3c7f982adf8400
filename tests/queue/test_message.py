"""A message of Celery's queue: what is read, and that whatever else stands there has its reason."""

from __future__ import annotations

import base64
import bz2
import json
import tracemalloc
import zlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from events import EVENT
from hypothesis import given
from hypothesis import strategies as st
from kombu import compression
from kombu.utils import json as kombu_json
from messages import EMBED, body_of, message
from strategies import PROPERTY

from postbacks.names import is_id
from postbacks.queue.message import MAX_BODY_BYTES, NEWER, Unreadable, decode, find_id
from postbacks.queue.protocol import SCHEMA_HEADER, can_unpack

#: Longer than Python's limit on the digits of an int, and deeper than its limit on recursion.
LONG_INT = b"9" * 5000
DEEP = b"[" * 100_000


def message_1(body: bytes | None = None, *, without=(), headers=None, **changes) -> bytes:
    """A message of Celery's protocol 1: the body says all."""
    said = {
        "id": "id-1",
        "task": "postbacks.send_postback",
        "args": ["acme", EVENT],
        "kwargs": {},
        "retries": 0,
    }
    said = {name: value for name, value in (said | changes).items() if name not in without}
    text = json.dumps(said).encode() if body is None else body
    envelope = {
        "body": base64.b64encode(text).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "properties": {"body_encoding": "base64"},
    }
    return json.dumps(envelope if headers is None else envelope | {"headers": headers}).encode()


def test_a_message_of_celerys_is_read():
    """Id, arguments; no times where the caller gave none."""
    read = decode(message(body_of(kwargs={"url": "http://a.example/"})))
    assert (read.id, read.args, read.kwargs) == ("id-1", ["acme", EVENT], {"url": "http://a.example/"})
    assert (read.eta, read.expires) == (None, None)


def test_eta_and_expires_are_read_with_their_zone():
    """As Celery writes them, ISO 8601."""
    read = decode(message(eta="2026-01-02T03:04:05.5+00:00", expires="2026-01-02T03:04:05-05:00"))
    assert read.eta == datetime(2026, 1, 2, 3, 4, 5, 500_000, UTC)
    assert read.expires == datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=-5)))


def test_a_body_without_base64_is_read():
    """Other clients put the JSON in as it is."""
    envelope = json.loads(message(properties={}))
    envelope["body"] = body_of().decode()
    assert decode(json.dumps(envelope).encode()).args == ["acme", EVENT]


@pytest.mark.parametrize("headers", [None, {}, {"sentry-trace": "x"}])
def test_a_message_of_protocol_1_is_read(headers):
    """All of it stands in the body: id, arguments; headers there are none, or others."""
    read = decode(message_1(kwargs={"url": "http://a.example/"}, headers=headers))
    assert (read.id, read.args, read.kwargs) == ("id-1", ["acme", EVENT], {"url": "http://a.example/"})
    assert (read.eta, read.expires) == (None, None)


def test_a_message_of_protocol_1_may_leave_out_or_null_what_is_empty():
    """As Go writes an empty map, and Node nothing at all; what is missing is then the order's fault, not the body's."""
    assert decode(message_1(kwargs=None)).kwargs == {}
    assert decode(message_1(without=("kwargs", "retries"))).kwargs == {}
    assert decode(message_1(args=None)).args == []


@pytest.mark.parametrize(
    ("text", "more", "moment"),
    [
        ("2026-01-02T03:04:05.123456789Z", {}, datetime(2026, 1, 2, 3, 4, 5, 123_456, UTC)),
        ("2026-01-02T03:04:05-05:00", {"utc": False}, datetime(2026, 1, 2, 8, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.678", {}, datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)),
        ("2026-01-02T03:04:05", {"utc": True}, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ],
    ids=["Go's nanoseconds", "an offset", "Node's without zone", "utc"],
)
def test_the_times_of_protocol_1_are_in_utc_where_they_have_no_zone(text, more, moment):
    """Celery's own reading of them: utc is true unless the body says otherwise."""
    read = decode(message_1(eta=text, expires=text, **more))
    assert (read.eta, read.expires) == (moment, moment)


def test_a_compressed_message_of_protocol_1_is_read():
    """kombu says the compression in a header."""
    packed, content_type = compression.compress(json.dumps(
        {"id": "id-1", "task": "postbacks.send_postback", "args": ["acme", EVENT], "kwargs": {}}).encode(), "gzip")  # fmt: skip
    assert decode(message_1(body=packed, headers={"compression": content_type})).args == ["acme", EVENT]


@pytest.mark.parametrize("name", ["gzip", "zlib", "bzip2", "bzip"])
def test_a_body_that_kombu_compressed_is_read(name):
    """By every name that kombu has for the two."""
    packed, content_type = compression.compress(body_of(), name)
    assert decode(message(packed, compression=content_type)).args == ["acme", EVENT]
    assert can_unpack(name)


@pytest.mark.parametrize("name", ["lzma", "zstd", "brotli", "", None, [], 7])
def test_no_other_compression_can_be_read(name):
    """The caller is refused what the intake could not read."""
    assert not can_unpack(name)


def test_python_values_of_a_foreign_celery_client_are_read():
    """kombu marks a datetime in JSON; it comes back as one."""
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    event = EVENT | {"TIMESTAMP": when}
    body = kombu_json.dumps([["acme", event], {}, EMBED]).encode()
    assert b"__type__" in body
    assert decode(message(body)).args[1]["TIMESTAMP"] == when


def test_a_text_that_only_mentions_kombus_mark_is_left_alone():
    """__type__ in somebody's SMS is text."""
    event = EVENT | {"CAMPAIGNTITLE": '{"__type__": "decimal", "__value__": "x"}'}
    assert decode(message(body_of(("acme", event)))).args[1] == event


def typed(kind: object, value: object) -> bytes:
    """A body with one value that kombu is to make a Python object of."""
    return body_of(("acme", {"ORIGIN": {"__type__": kind, "__value__": value}}))


#: name -> message, and what its reason says
GARBAGE = {
    "nothing": (b"", "no JSON"),
    "bytes": (b"\x00\xff\xfe garbage", "no JSON"),
    "half a message": (message()[:100], "no JSON"),
    "bad utf-8": (b'{"headers": "\xff"}', "no JSON"),
    "a long int": (LONG_INT, "no JSON"),
    "deep": (DEEP, "no JSON"),
    "a list": (b"[]", "no JSON object"),
    "null": (b"null", "no JSON object"),
    "empty object": (b"{}", "protocol 2"),
    "headers are a list": (b'{"headers": ["task"]}', "protocol 2"),
    "headers alone": (b'{"headers": {"task": "postbacks.send_postback"}}', "no usable id"),
    "neither protocol": (message_1(task=None, without=("task",)), "neither Celery's protocol 2"),
    "a list without headers": (message_1(body=b"[[], {}, {}]"), "neither Celery's protocol 2"),
    "protocol 1 without id": (message_1(without=("id",)), "no usable id"),
    "protocol 1, another task": (message_1(task="shop.add"), "for the task 'shop.add'"),
    "protocol 1, args are an object": (message_1(args={}), "no list"),
    "protocol 1, kwargs are a list": (message_1(kwargs=[]), "no object"),
    "protocol 1, callbacks": (message_1(callbacks=[{"task": "x"}]), "asks for callbacks afterwards"),
    "protocol 1, errbacks": (message_1(errbacks=[{"task": "x"}]), "asks for errbacks afterwards"),
    "protocol 1, chord": (message_1(chord={"task": "x"}), "asks for chord afterwards"),
    "protocol 1, eta in local time": (message_1(eta="2026-01-02T03:04:05", utc=False), "no time zone"),
    "protocol 1, eta is a number": (message_1(eta=17), "no ISO 8601"),
    "protocol 1, pickle": (message_1(body=b"\x80\x04\x95"), "neither Celery's protocol 2.* invalid start byte"),
    "celery.map": (message(task="celery.map"), "cannot be mapped in a worker: .*a message of its own"),
    "protocol 1, celery.starmap": (message_1(task="celery.starmap"), "cannot be mapped in a worker"),
    "no id": (message(id=None), "no usable id"),
    "id with a space": (message(id="a b"), "no usable id"),
    "id with a line's end": (message(id="a\n"), "no usable id"),
    "id too long": (message(id="x" * 256), "no usable id"),
    "id is a number": (message(id=17), "no usable id"),
    "another task": (message(task="shop.add"), "for the task 'shop.add'"),
    "task is a list": (message(task=["postbacks.send_postback"]), "for the task \\['postbacks"),
    "content type": (message(content_type="application/x-python-serialize"), "not application/json"),
    "pickle": (message(b"\x80\x04\x95"), "cannot be read"),
    "no base64": (json.dumps(json.loads(message()) | {"body": "%%%"}).encode(), "no base64"),
    "body is a number": (json.dumps(json.loads(message()) | {"body": 5}).encode(), "cannot be read"),
    "body is missing": (message(b""), "cannot be read"),
    "no gzip": (message(b"xxxx", compression="application/x-gzip"), "cannot be read"),
    "no bzip2": (message(b"xxxx", compression="application/x-bz2"), "cannot be read"),
    "half a gzip": (message(zlib.compress(body_of())[:20], compression="application/x-gzip"), "cannot be read"),
    "unknown compression": (message(compression="application/zstd"), "'application/zstd' is not supported"),
    "compression is a list": (message(compression=["gzip"]), "cannot be read"),
    "body is an object": (message(b"{}"), r"\[args, kwargs, embed\]"),
    "args alone": (message(b"[[]]"), r"\[args, kwargs, embed\]"),
    "args are an object": (message(b"[{}, {}, {}]"), "no list"),
    "kwargs are a list": (message(b"[[], [], {}]"), "no object"),
    "deep body": (message(DEEP), "cannot be read"),
    "long int in the body": (message(b"[[" + LONG_INT + b"], {}, {}]"), "cannot be read"),
    "too large": (message(b" " * (MAX_BODY_BYTES + 1)), f"larger than {MAX_BODY_BYTES:,} bytes"),
    "eta without zone": (message(eta="2026-01-02T03:04:05"), "no time zone"),
    "eta is a number": (message(eta=17), "no ISO 8601"),
    "eta is a word": (message(eta="soon"), "cannot be read"),
    "expires without zone": (message(expires="2026-01-02T03:04:05"), "no time zone"),
    "callbacks": (message(body_of(embed=EMBED | {"callbacks": [{"task": "x"}]})), "asks for callbacks afterwards"),
    "errbacks": (message(body_of(embed=EMBED | {"errbacks": [{"task": "x"}]})), "asks for errbacks afterwards"),
    "chain": (message(body_of(embed=EMBED | {"chain": [{"task": "x"}]})), "asks for chain afterwards"),
    "chord": (message(body_of(embed=EMBED | {"chord": {"task": "x"}})), "asks for chord afterwards"),
    "a decimal that is none": (message(typed("decimal", "x")), "cannot be read"),
    "a decimal of an object": (message(typed("decimal", {})), "cannot be read"),
    "a uuid without parts": (message(typed("uuid", {})), "cannot be read"),
    "a uuid of text": (message(typed("uuid", "x")), "cannot be read"),
    "a datetime that is none": (message(typed("datetime", "x")), "cannot be read"),
    "bytes of a number": (message(typed("bytes", 7)), "cannot be read"),
    "an unknown type": (message(typed("set", [])), "cannot be read"),
    "a type that is a list": (message(typed([], [])), "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "fault"), GARBAGE.values(), ids=list(GARBAGE))
def test_what_is_no_postback_is_unreadable_with_a_reason_that_names_the_fault(raw, fault):
    """Always Unreadable, always an id to keep it under, never a reason that is endless."""
    with pytest.raises(Unreadable, match=fault) as unreadable:
        decode(raw)
    assert is_id(unreadable.value.message_id)
    assert len(unreadable.value.reason) < 400


def test_an_unreadable_message_keeps_its_id_where_it_has_one():
    """So that its caller finds it; one without gets an id of its own each time."""
    for raw in (
        message(b"xxxx"),
        message_1(eta="soon"),
        message_1(task="shop.add"),
        message_1(chord={"task": "x"}),
        message_1(args=7),
        message_1(without=("task",)),
        message_1(headers={SCHEMA_HEADER: 2}),
        message_1(json.dumps(BODY_1).encode()[:-9]),
        message_1(json.dumps(BODY_1).encode() + b"\xff"),
        message_1(pad="x" * MAX_BODY_BYTES),
        message_1().replace(b"application/json", b"application/x-yaml"),
        message_1()[:-9],
        message(task=None).replace(b'"task": null, ', b""),
    ):
        with pytest.raises(Unreadable) as named:
            decode(raw)
        assert named.value.message_id == "id-1"
    assert Unreadable("x").message_id != Unreadable("x").message_id


def within(said: bytes) -> bytes:
    """A message whose body is JSON within JSON, as it is without base64."""
    return json.dumps({"body": said.decode(), "properties": {}}).encode()


BODY_1 = {
    "task": "postbacks.send_postback",
    "id": "id-1",
    "args": ["acme", EVENT | {"CAMPAIGNTITLE": "x" * 7}],
}


@pytest.mark.parametrize(
    ("raw", "message_id"),
    [
        (message(), "id-1"),
        (message_1(), "id-1"),
        (message_1(json.dumps(BODY_1, separators=(",", ":")).encode()), "id-1"),
        *((message_1(json.dumps(BODY_1 | {"pad": "x" * size}).encode()), "id-1") for size in range(3)),
        (within(json.dumps(BODY_1).encode()), "id-1"),
        (within(json.dumps(BODY_1, separators=(",", ":")).encode()), "id-1"),
        (message_1(b"\x00" * 100), None),
        (message(id="a b"), None),
        (b"garbage", None),
        (b"", None),
    ],
)
def test_the_id_of_a_message_that_is_not_read_is_found_in_its_bytes(raw, message_id):
    """In the headers of protocol 2; in the body of protocol 1, as base64 of any length or as JSON within JSON."""
    assert find_id(raw) == message_id


@pytest.mark.parametrize(
    ("kind", "pack"), [("application/x-gzip", zlib.compress), ("application/x-bz2", bz2.compress)]
)
def test_a_compression_bomb_is_refused_without_being_unpacked(kind, pack):
    """256 MiB of nothing take no 16 MiB of memory."""
    bomb = message(_packed_zeros(pack, 256), compression=kind)
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match=f"larger than {MAX_BODY_BYTES:,} bytes"):
            decode(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 1024 * 1024


def _packed_zeros(pack, mebibytes: int) -> bytes:
    compressor = bz2.BZ2Compressor() if pack is bz2.compress else zlib.compressobj()
    zeros = bytes(1024 * 1024)
    return b"".join(compressor.compress(zeros) for _ in range(mebibytes)) + compressor.flush()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        | st.builds(
            lambda kind, value: {"__type__": kind, "__value__": value},
            st.sampled_from(["datetime", "date", "time", "decimal", "uuid", "bytes", "base64", "other"])
            | inner,
            inner,
        )
    ),
    max_leaves=12,
)
_headers = st.fixed_dictionaries(
    {},
    optional={
        "task": st.just("postbacks.send_postback") | _json,
        "id": st.just("id-1") | _json,
        "eta": st.datetimes().map(datetime.isoformat) | _json,
        "expires": _json,
        "compression": st.sampled_from(["application/x-gzip", "application/x-bz2"]) | _json,
    },
)
_bodies = (
    st.binary(max_size=60)
    | _json.map(lambda value: json.dumps(value).encode())
    | st.tuples(_json, _json, _json).map(lambda parts: json.dumps(parts).encode())
    | st.binary(max_size=20).map(zlib.compress)
    | st.binary(max_size=20).map(bz2.compress)
)


def _only_unreadable(raw: bytes) -> None:
    try:
        kept_as = decode(raw).id
    except Unreadable as unreadable:
        kept_as = unreadable.message_id if unreadable.reason else ""
    assert is_id(kept_as)


@PROPERTY
@given(st.binary(max_size=200) | _json.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_at_all_are_read_or_unreadable(raw):
    """Nothing else is ever raised."""
    _only_unreadable(raw)


@PROPERTY
@given(_headers, _bodies)
def test_a_message_with_anything_in_its_headers_and_body_is_read_or_unreadable(headers, body):
    """The same a layer deeper, where the envelope is sound, in both protocols."""
    _only_unreadable(message(body, **headers))
    _only_unreadable(message_1(body, headers={name: headers[name] for name in headers if name != "task"}))


@PROPERTY
@given(
    st.dictionaries(
        st.sampled_from(["id", "task", "args", "kwargs", "eta", "expires", "utc", "callbacks"]), _json
    )
)
def test_a_message_of_protocol_1_with_anything_in_it_is_read_or_unreadable(said):
    """Any JSON for each of its parts."""
    _only_unreadable(message_1(**said))


@pytest.mark.parametrize("change", range(0, 700, 7))
def test_a_message_with_one_byte_changed_is_read_or_unreadable(change):
    """Every seventh byte of a sound message, once inverted and once cut off there."""
    raw = message()
    at = change % len(raw)
    _only_unreadable(raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :])
    _only_unreadable(raw[:at])


@pytest.mark.parametrize("schema", [1, "1", None, -5, 1.5, [2], {}, "two", True])
def test_a_schema_that_is_known_or_none_changes_nothing(schema):
    """Only a number beyond ours says that a newer version is needed."""
    assert decode(message(**{SCHEMA_HEADER: schema})).id == "id-1"


@pytest.mark.parametrize("schema", [2, "2", "9" * 5000, 10**4000])
def test_a_message_of_a_newer_schema_is_not_guessed_at(schema):
    """The message is kept whole, with the reason, until a newer worker reads it."""
    with pytest.raises(Unreadable, match=NEWER):
        decode(message(**{SCHEMA_HEADER: schema}))
