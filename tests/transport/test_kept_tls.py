"""A second answer that lies decrypted in a kept TLS connection is no answer to the next postback."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress

from helpers import eventually
from identities import Identity

from postbacks.settings import Settings
from postbacks.transport.client import CurlClient
from postbacks.transport.connections import IdleConnections
from postbacks.transport.profile import Profile, Tls
from postbacks.transport.transfer import Transfer

SETTINGS = Settings(allowed_networks="127.0.0.0/8", connect_timeout_s=30, answer_timeout_s=30)


class Smuggler:
    """Answers 200 in two TLS records, the second with a further 200 in it; after that, honestly 500."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.paths: list[str] = []
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self._socket.accept()
                threading.Thread(target=self._converse, args=(plain,), daemon=True).start()

    def _converse(self, plain: socket.socket) -> None:
        with suppress(OSError), self._context.wrap_socket(plain, server_side=True) as connection:
            while True:
                data = b""
                while not data.endswith(b"<POSTBACK/>"):
                    some = connection.recv(65_536)
                    if not some:
                        return
                    data += some
                path = data.split(b" ", 2)[1].decode()
                self.paths.append(path)
                if path == "/smuggle":
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
                    time.sleep(0.05)  # a record of its own
                    connection.sendall(b"OKHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                else:
                    time.sleep(0.2)
                    connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def test_an_answer_that_came_before_its_request_over_tls_delivers_nothing(tmp_path):
    """The next postback has left, so it is a failed attempt, and its one POST: the answer is no answer to it."""
    identity = Identity("receiver")
    certificate, key = identity.write(tmp_path, "receiver")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server, adapter = Smuggler(context), CurlClient(SETTINGS)
    try:
        profile = Profile(20, 20, tls=Tls(ca_bundle=identity.cert_pem))
        for _ in range(3):
            posts = [Transfer(f"https://127.0.0.1:{server.port}/{path}", b"<POSTBACK/>", [], profile)
                     for path in ("smuggle", "next")]  # fmt: skip
            first, second = adapter.post(posts[0]), adapter.post(posts[1])
            assert first.name == "delivered"
            assert (second.name, second.status) == ("broken_answer", None)
            assert "an answer came before the postback was sent" in second.detail
        eventually(lambda: server.paths == ["/smuggle", "/next"] * 3, what="one POST each")
    finally:
        adapter.close()
        server.close()


def test_two_connections_that_share_a_local_port_are_told_apart():
    """The kernel gives one local port to connections with different peers: each is looked at by itself."""
    one, two = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    with one, two, socket.socket() as to_one, socket.socket() as to_two:
        for own in (to_one, to_two):
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        to_one.bind(("127.0.0.1", 0))
        to_one.connect(one.getsockname())
        to_two.bind(to_one.getsockname())
        to_two.connect(two.getsockname())
        kept = IdleConnections()
        kept.add(to_one.fileno())
        kept.add(to_two.fileno())
        accepted, _ = one.accept()
        with accepted:
            accepted.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while to_one.recv(1, socket.MSG_PEEK) == b"":
                pass
            assert not kept.is_clean((*to_one.getsockname(), *one.getsockname()))
            assert kept.is_clean((*to_two.getsockname(), *two.getsockname()))
