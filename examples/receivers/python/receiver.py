"""Receiver of postbacks with Python's standard library alone (Python 3.10 or newer).

    WEBHOOK_SECRET=whsec_... python3 receiver.py        receives on http://127.0.0.1:8080/ (PORT; 0 takes a free one)
    python3 receiver.py state                           prints the newest of each subscriber, message and pass

What it stores stands in DATA_DIR (``receiver-data``). Before it stands your web server, which speaks TLS.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.parsers import expat

DATABASE = Path(os.environ.get("DATA_DIR", "receiver-data")) / "postbacks.db"
#: No postback has more than 2 MB.
BODY_BYTES_MAX = 2 * 1024 * 1024
#: Seconds that a sender has for its body.
BODY_S_MAX = 10
#: Seconds between the time of a signature and now.
TOLERANCE_S = 300
#: Elements inside of each other; a postback has 3 today.
DEPTH_MAX = 16
#: Tags that name what an event is about. Of two events about the same, the one with the higher sequence is newer.
SUBJECTS = {
    "SUB": ("MOBILE", "CAMPAIGNID"),
    "EMAIL_SUB": ("EMAIL", "CAMPAIGNID"),
    "SMS_MT": ("TRACKINGID",),
    "MMS_MT": ("TRACKINGID", "MMSID"),
    "GENERATE_PASS": ("REFERENCEDBY", "REFERENCEVALUE"),
}
SCHEMA = """
CREATE TABLE IF NOT EXISTS postbacks (
  id TEXT PRIMARY KEY,               -- webhook-id: a repeat cannot be stored
  sequence INTEGER NOT NULL,
  body BLOB NOT NULL,
  received_s REAL NOT NULL,          -- when it last came: delete what has not come for 31 days
  is_done INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS open_postbacks ON postbacks (sequence) WHERE NOT is_done;
CREATE TABLE IF NOT EXISTS states (
  subject TEXT PRIMARY KEY,
  sequence INTEGER NOT NULL,
  code TEXT NOT NULL,
  id TEXT NOT NULL
);
"""


class Refused(Exception):
    """Raised for a request that gets another status than 200."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


# -- the request -------------------------------------------------------------------------------------


def check_signature(key: bytes, headers: Message, body: bytes, now_s: float) -> str:
    """Return the id of a request that is signed with the key, and recently; the body is as it arrived."""
    signed = [headers.get_all(name, []) for name in ("webhook-id", "webhook-timestamp", "webhook-signature")]
    if any(len(values) != 1 for values in signed):
        raise Refused(401, "webhook-id, webhook-timestamp and webhook-signature must be there once each")
    (postback_id,), (timestamp,), (signatures,) = signed
    if not re.fullmatch("[0-9]{1,12}", timestamp) or abs(now_s - int(timestamp)) > TOLERANCE_S:
        raise Refused(401, "webhook-timestamp is not the time of the last 5 minutes")
    if not re.fullmatch("[\x21-\x7e]{1,255}", postback_id):
        raise Refused(400, "webhook-id is no id of a postback")
    expected = hmac.new(key, f"{postback_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    # Several while the secret is being changed; one that fits is enough.
    if not any(hmac.compare_digest(expected, signature) for signature in read_signatures(signatures)):
        raise Refused(401, "no signature fits")
    return postback_id


def read_signatures(text: str) -> Iterator[bytes]:
    """Yield the bytes of each signature of the version that we know."""
    for word in text.split(" "):
        version, _, signature = word.partition(",")
        if version == "v1":
            try:
                yield base64.b64decode(signature, validate=True)
            except (binascii.Error, ValueError):
                continue


def read_sequence(headers: Message) -> int:
    """Return the number of the postback in the account."""
    values = headers.get_all("Postback-Sequence", [])
    if len(values) != 1 or not re.fullmatch("[0-9]{1,15}", values[0]):
        raise Refused(400, "Postback-Sequence must be there once, and be a number")
    return int(values[0])


def parse(body: bytes) -> dict[str, Any]:
    """Return a document's tags: the text of each, or the lists of what it holds by name."""
    try:
        return read_tags(body.decode())
    except (expat.ExpatError, ValueError) as error:
        raise Refused(400, f"the body is no postback: {error}") from None


def read_tags(document: str) -> dict[str, Any]:
    """Read a document, which is text already, since expat would follow the signs of another encoding.

    A postback has no DOCTYPE, no comment and no CDATA, so the first sign of one is refused; the parser would refuse a
    DOCTYPE, too, before anything in it is read.
    """
    if "<!" in document or "\0" in document:
        raise ValueError("it has a DOCTYPE, a comment, CDATA or a NUL")
    elements: list[tuple[str, dict[str, list[Any]], list[str]]] = [("", {}, [])]

    def refuse_doctype(*_: object) -> None:
        raise ValueError("it has a DOCTYPE")

    def start(name: str, _attributes: object) -> None:
        if len(elements) > DEPTH_MAX:
            raise ValueError("it is nested too deeply")
        elements.append((name, {}, []))

    def add(text: str) -> None:
        elements[-1][2].append(text)

    def end(_name: str) -> None:
        name, children, texts = elements.pop()
        elements[-1][1].setdefault(name, []).append(children or "".join(texts))

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse_doctype
    parser.StartElementHandler = start
    parser.CharacterDataHandler = add
    parser.EndElementHandler = end
    parser.Parse(document, True)
    children = elements[0][1].get("POSTBACK", [""])[0]
    if not isinstance(children, dict):
        raise ValueError("its root is not POSTBACK with tags")
    if any(len(values) > 1 for values in children.values()):
        raise ValueError("a tag is there twice")
    tags = {name: values[0] for name, values in children.items()}
    if not all(isinstance(tags.get(name), str) for name in ("ORIGIN", "CODE")):
        raise ValueError("it has no ORIGIN or no CODE")
    return tags  # tags and codes that we do not know are stored as well: they are new ones


# -- the store ---------------------------------------------------------------------------------------


def connect() -> sqlite3.Connection:
    """Open the database; a commit is on the disk when it returns."""
    connection = sqlite3.connect(DATABASE, timeout=5, isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def store(postback_id: str, sequence: int, body: bytes) -> None:
    """Store a postback, or the time alone if its id is known. Of two at once the second waits for the first's commit."""
    with closing(connect()) as connection:
        connection.execute(
            "INSERT INTO postbacks (id, sequence, body, received_s) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET received_s = excluded.received_s",
            (postback_id, sequence, body, time.time()),
        )


# -- the work, after the answer ----------------------------------------------------------------------


def work_forever(stored: threading.Event) -> None:
    """Handle what is stored, also what an earlier process left."""
    while True:
        try:
            with closing(connect()) as connection:
                work(connection, stored)
        except Exception as error:  # noqa: BLE001 - your program's, too: a thread that ends handles nothing more
            print(f"not handled, again in a second: {error!r}", file=sys.stderr)
            time.sleep(1)


def work(connection: sqlite3.Connection, stored: threading.Event) -> None:
    """Handle what is stored as long as the database can be used."""
    while True:
        stored.clear()
        rows = connection.execute(
            "SELECT id, sequence, body FROM postbacks WHERE NOT is_done ORDER BY sequence LIMIT 100"
        ).fetchall()
        for row in rows:
            handle(connection, *row)
        if not rows:
            stored.wait()


def handle(connection: sqlite3.Connection, postback_id: str, sequence: int, body: bytes) -> None:
    """Your program begins here: keep the newest of each subject, and print the postback.

    If the process ends in the middle, the next one begins with this postback again.
    """
    tags = parse(body)
    subject = subject_of(tags)
    is_newest = subject is None or connection.execute(
        "INSERT INTO states (subject, sequence, code, id) VALUES (?, ?, ?, ?) ON CONFLICT (subject) DO UPDATE SET "
        "sequence = excluded.sequence, code = excluded.code, id = excluded.id WHERE excluded.sequence >= sequence",
        (subject, sequence, tags["CODE"], postback_id),
    ).rowcount == 1  # fmt: skip
    print_json({"id": postback_id, "sequence": sequence, "newest": is_newest, "tags": tags})
    connection.execute("UPDATE postbacks SET is_done = 1 WHERE id = ?", (postback_id,))


def subject_of(tags: dict[str, Any]) -> str | None:
    """Return what an event is about; None for a message from a person, which is about itself."""
    names = SUBJECTS.get(tags["ORIGIN"], ())
    values = [tags[name] for name in names if isinstance(tags.get(name), str)]
    if tags["ORIGIN"] == "MMS_MT":
        values = values[:1]  # the message, or where no message is meant its content
    return "/".join([tags["ORIGIN"], *values]) if values else None


def print_state() -> None:
    """Print the newest event of each subject."""
    with closing(connect()) as connection:
        connection.row_factory = sqlite3.Row
        for row in connection.execute("SELECT * FROM states ORDER BY subject"):
            print_json(dict(row))


def print_json(value: object) -> None:
    """Print a line of JSON at once."""
    print(json.dumps(value), flush=True)


# -- the server --------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Server with a thread for each connection."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, port: int, key: bytes, stored: threading.Event) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.key = key
        self.stored = stored

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that has gone."""


class Handler(BaseHTTPRequestHandler):
    """Answers to the requests of one connection."""

    protocol_version = "HTTP/1.1"  # the connection is kept
    server_version, sys_version = "receiver", ""
    timeout = 130  # postbacks does not use a connection that has rested for 118 s
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Check, store, answer. The work comes afterwards."""
        try:
            body = self.read_body()
            postback_id = check_signature(self.server.key, self.headers, body, time.time())
            sequence = read_sequence(self.headers)
            parse(body)
            if self.headers.get("Postback-Test") != "1":
                store(postback_id, sequence, body)
                self.server.stored.set()
        except Refused as refused:
            self.answer(refused.status, str(refused))
        except (sqlite3.Error, OSError) as error:
            # Not stored, so not 200: it comes again in 5 minutes.
            print(f"not stored: {error}", file=sys.stderr)
            self.answer(503, "cannot store it now")
        else:
            self.answer(200, "OK")

    def refuse_method(self) -> None:
        """Answer whoever looks at the URL in a browser."""
        self.close_connection = True
        self.answer(405, "postbacks are POSTed here")

    do_GET = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = refuse_method

    def read_body(self) -> bytes:
        """Return the body; one that is too long, or that has no length, is not read."""
        self.close_connection = True  # unless the body is read whole
        lengths = self.headers.get_all("Content-Length", [])
        if (
            len(lengths) != 1
            or not re.fullmatch("[0-9]{1,18}", lengths[0])
            or "Transfer-Encoding" in self.headers
        ):
            raise Refused(411, "Content-Length must be there once, without Transfer-Encoding")
        missing = int(lengths[0])
        if missing > BODY_BYTES_MAX:
            raise Refused(413, "the body is too long")
        pieces = []
        deadline_s = time.monotonic() + BODY_S_MAX
        while missing:
            self.connection.settimeout(max(deadline_s - time.monotonic(), 0.001))
            try:
                piece = self.rfile.read1(missing)
            except TimeoutError:
                raise Refused(408, "the body did not come in time") from None
            if not piece:
                raise Refused(400, "the body ended early")
            pieces.append(piece)
            missing -= len(piece)
        self.connection.settimeout(self.timeout)
        self.close_connection = self.headers.get("Connection", "").lower() == "close"
        return b"".join(pieces)

    def answer(self, status: int, reason: str) -> None:
        """Answer; the sender keeps the first 256 bytes of the reason where the status is not 200."""
        body = reason.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if status == 405:
            self.send_header("Allow", "POST")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no line for each request."""


def read_key() -> bytes:
    """Return the key of WEBHOOK_SECRET, or end with a sentence."""
    secret = os.environ.get("WEBHOOK_SECRET", "")
    try:
        key = base64.b64decode(secret[6:], validate=True) if secret.startswith("whsec_") else b""
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        sys.exit("Set WEBHOOK_SECRET to the secret of your account: whsec_ and base64.")
    return key


def main() -> None:
    """Serve until Ctrl-C, or print the state."""
    DATABASE.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with closing(connect()) as connection:
        connection.executescript(SCHEMA)
    if sys.argv[1:] == ["state"]:
        print_state()
        return
    stored = threading.Event()
    server = Server(int(os.environ.get("PORT", "8080")), read_key(), stored)
    print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
    threading.Thread(target=work_forever, args=(stored,), daemon=True).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
