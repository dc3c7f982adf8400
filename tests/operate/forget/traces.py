"""Traces of the person: every text of the broker, every value and file of the history."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forget_world import HASH, SPELLINGS
from sqlalchemy import text

from postbacks import keys
from postbacks.history import documents, schema


def value_of(client: Any, key: bytes) -> list[bytes]:
    """Every text that a key holds, read by its type."""
    kind = client.type(key)
    if kind == b"hash":
        return [part for pair in client.hgetall(key).items() for part in pair]
    if kind == b"list":
        return client.lrange(key, 0, -1)
    if kind == b"set":
        return list(client.smembers(key))
    if kind == b"zset":
        return client.zrange(key, 0, -1)
    if kind == b"stream":
        return [part for _, fields in client.xrange(key) for pair in fields.items() for part in pair]
    return [client.get(key)]


def texts_of(client: Any) -> Iterator[tuple[str, bytes]]:
    """Every key of a broker with every text under it, the bodies of messages unpacked, and with its dump."""
    for key in client.scan_iter():
        name = key.decode()
        yield name, key
        yield name, client.dump(key) or b""
        for part in value_of(client, key):
            yield name, part
            if part.startswith(b'{"body"'):
                yield name, base64.b64decode(json.loads(part)["body"])


def found_in(texts: Iterator[tuple[str, bytes]]) -> list[str]:
    """Names of what has the person's number, or its hash, in any spelling."""
    wanted = [*(spelling.encode() for spelling in SPELLINGS), str(HASH).encode()]
    return sorted({name for name, part in texts if any(word in part for word in wanted)})


def database_texts(engine: Any) -> Iterator[tuple[str, bytes]]:
    """Every value of every table, the documents unpacked."""
    with engine.connect() as connection:
        for name, table in schema.metadata.tables.items():
            for row in connection.execute(text(f"SELECT * FROM {name}")).mappings():
                for column, value in row.items():
                    yield f"{name}.{column}", value if isinstance(value, bytes) else str(value).encode()
                if table is schema.documents:
                    for document in documents.unpack(row["packing"], row["row_count"], row["pack"]):
                        yield "a document", document.content


def file_bytes(engine: Any) -> dict[str, bytes]:
    """The files of a database: SQLite's with its log, PostgreSQL's of every table and index with their TOAST."""
    if engine.dialect.name == "sqlite":
        path = Path(str(engine.url.database).removeprefix("file://"))
        return {file.name: file.read_bytes() for file in path.parent.glob(f"{path.name}*")}
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("CHECKPOINT"))
        directory = Path(connection.execute(text("SHOW data_directory")).scalar_one())
        relations = connection.execute(
            text(
                "SELECT relname, pg_relation_filepath(oid) FROM pg_class "
                "WHERE relkind IN ('r', 'i', 't') AND pg_relation_filepath(oid) IS NOT NULL AND oid >= 16384"
            )
        ).all()
    return {name: (directory / path).read_bytes() for name, path in relations}


def raw_finds(engine: Any) -> list[str]:
    """Names of files with the person's digits, or with the hash as either database stores it."""
    wanted = [b"5557654321", HASH.to_bytes(8, "big", signed=True), HASH.to_bytes(8, "little", signed=True)]
    return [name for name, content in file_bytes(engine).items() if any(word in content for word in wanted)]


def check_bytes(client: Any) -> None:
    """Compare the counts of bytes with what the records say."""
    dead: dict[bytes, int] = {}
    total = 0
    for key in client.scan_iter(f"{keys.RECORD}*"):
        state, account, size = client.hmget(key, "state", "account", "bytes")
        total += int(size or 0)
        if state == b"dead":
            dead[account] = dead.get(account, 0) + int(size)
    assert int(client.get(keys.LEDGER_BYTES)) == total
    assert {
        account: int(size) for account, size in client.zrange(keys.DEAD_BYTES, 0, -1, withscores=True)
    } == dead
