"""Numbers of names that repeat: accounts, events, endpoints and URLs, each written once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from sqlalchemy import TextClause, text

from postbacks.history.rows import text_of
from postbacks.urls import redacted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import Connection

    from postbacks.history.rows import Reading

#: Names of a kind that are remembered; past it all of them are forgotten, and read again.
_REMEMBERED_MAX: Final = 50_000

_FIND_ACCOUNT: Final = text("SELECT id FROM accounts WHERE name = :name")
_ADD_ACCOUNT: Final = text("INSERT INTO accounts (name) VALUES (:name) RETURNING id")
_FIND_CODE: Final = text(
    "SELECT id FROM codes WHERE origin = :origin AND code = :code AND group_name = :group_name"
)
_ADD_CODE: Final = text(
    "INSERT INTO codes (origin, code, group_name) VALUES (:origin, :code, :group_name) RETURNING id"
)
_FIND_ENDPOINT: Final = text("SELECT id FROM endpoints WHERE endpoint = :endpoint")
_ADD_ENDPOINT: Final = text("INSERT INTO endpoints (endpoint, host) VALUES (:endpoint, :host) RETURNING id")
_FIND_URL: Final = text("SELECT id FROM urls WHERE hash = :hash AND own = :own AND url = :url")
_ADD_URL: Final = text("INSERT INTO urls (hash, own, url) VALUES (:hash, :own, :url) RETURNING id")
_ADD_PAIR: Final = text(
    "INSERT INTO account_endpoints (endpoint, account) VALUES (:endpoint, :account) ON CONFLICT DO NOTHING"
)


class Names:
    """Numbers that one writer knows. They hold while its transactions do: after one that failed, ``forget`` all of them.

    Attributes:
        accounts: name -> its number.
        codes: origin, code and group -> their number.
        endpoints: scheme, host and port -> its number; 0 for none.
        urls: 1 for a call's own and the URL as it came -> its number; None for none.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget all numbers; each is read again when it is needed."""
        self.accounts: dict[bytes, int] = {}
        self.codes: dict[tuple[bytes, bytes, bytes], int] = {}
        self.endpoints: dict[bytes, int] = {b"": 0}
        self.urls: dict[tuple[bool, bytes], int | None] = {(False, b""): None, (True, b""): None}
        self._pairs: set[tuple[int, int]] = set()

    def learn(self, connection: Connection, readings: Iterable[Reading]) -> None:
        """Read or give the numbers of all names of these records."""
        known = self.accounts, self.endpoints, self.urls, self._pairs
        if any(len(names) > _REMEMBERED_MAX for names in known):
            self.forget()
        for reading in readings:
            if reading.account not in self.accounts:
                self.accounts[reading.account] = self._number(
                    connection, _FIND_ACCOUNT, _ADD_ACCOUNT, {"name": text_of(reading.account)}
                )
            event = reading.origin, reading.code, reading.group
            if event not in self.codes:
                origin, code, group = map(text_of, event)
                self.codes[event] = self._number(
                    connection, _FIND_CODE, _ADD_CODE, {"origin": origin, "code": code, "group_name": group}
                )
            if reading.endpoint not in self.endpoints:
                self.endpoints[reading.endpoint] = self._endpoint(connection, text_of(reading.endpoint))
            url = reading.own > 0, reading.url
            if url not in self.urls:
                self.urls[url] = self._url(connection, *url)
            pair = self.endpoints[reading.endpoint], self.accounts[reading.account]
            if pair not in self._pairs:
                if pair[0]:
                    connection.execute(_ADD_PAIR, {"endpoint": pair[0], "account": pair[1]})
                self._pairs.add(pair)

    def of(self, reading: Reading) -> tuple[int, int, int, int | None]:
        """Return the numbers of a record's account, event, endpoint and URL; ``learn`` came before."""
        return (
            self.accounts[reading.account],
            self.codes[reading.origin, reading.code, reading.group],
            self.endpoints[reading.endpoint],
            self.urls[reading.own > 0, reading.url],
        )

    def lose(self, urls: Collection[int]) -> None:
        """Forget URLs that were pruned."""
        if urls:
            self.urls = {key: number for key, number in self.urls.items() if number not in urls}

    @staticmethod
    def _number(connection: Connection, find: TextClause, add: TextClause, columns: dict[str, object]) -> int:
        number = connection.execute(find, columns).scalar()
        return int(connection.execute(add, columns).scalar_one() if number is None else number)

    def _endpoint(self, connection: Connection, endpoint: str) -> int:
        host = endpoint.partition("://")[2].rpartition(":")[0]
        return self._number(connection, _FIND_ENDPOINT, _ADD_ENDPOINT, {"endpoint": endpoint, "host": host})

    def _url(self, connection: Connection, is_own: bool, url: bytes) -> int:
        kept = text_of(url) if is_own else redacted(text_of(url))
        digest = hashlib.blake2b(kept.encode(), digest_size=8).digest()
        columns = {"hash": int.from_bytes(digest, "big", signed=True), "own": int(is_own), "url": kept}
        return self._number(connection, _FIND_URL, _ADD_URL, columns)
