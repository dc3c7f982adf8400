"""Records read in bulk: what the recorder does most, and so without redis-py's pipeline, which takes twice the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from postbacks import keys
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

_NEWEST = f"*6\r\n$9\r\nXREVRANGE\r\n${len(keys.CHANGES)}\r\n{keys.CHANGES}\r\n$1\r\n+\r\n$1\r\n-\r\n$5\r\nCOUNT\r\n$1\r\n1\r\n"


class Records:
    """Records of postbacks, each read as the broker has it at one moment.

    Args:
        client: the broker's client; replies come as bytes.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def read(self, postback_ids: Sequence[str]) -> tuple[list[dict[bytes, bytes]], str]:
        """Read the hashes of these ids in order, and the feed's newest entry just before.

        What an entry up to that one tells stands in the hashes. An empty hash stands for an id without a record, and one that
        cannot be read for a key that is no hash.

        Returns:
            The hashes, and the id of the entry; empty where the feed has none.
        """
        with broker_errors():
            connection: Any = self._client.connection_pool.get_connection()
            try:
                connection.send_packed_command([_commands(postback_ids)])
                newest, *replies = [_reply(connection) for _ in range(len(postback_ids) + 1)]
            except BaseException:
                connection.disconnect()  # replies may still be on their way
                raise
            finally:
                self._client.connection_pool.release(connection)
        hashes = [_hash(reply) for reply in replies]
        return hashes, text(newest[0][0]) if newest else ""


#: Hash of a record that cannot be read (``rows.py``).
_NO_HASH: Final = {b"schema": b""}


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        return _NO_HASH


def _commands(postback_ids: Sequence[str]) -> bytes:
    commands = [_NEWEST]
    for postback_id in postback_ids:
        key = keys.RECORD + postback_id
        commands.append(f"*2\r\n$7\r\nHGETALL\r\n${len(key)}\r\n{key}\r\n")
    return "".join(commands).encode("ascii")


def _hash(reply: Any) -> dict[bytes, bytes]:
    """Return the hash of a reply: a list of names and values, or a map with RESP 3."""
    if isinstance(reply, dict):
        return reply
    pairs = iter(reply)
    return dict(zip(pairs, pairs, strict=True))
