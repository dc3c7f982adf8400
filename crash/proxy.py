"""Small TCP proxy between us and the broker: cuts, delays, or leaves connections half-open."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import deque
from collections.abc import Callable
from typing import cast


class _End(asyncio.Protocol):
    """Side of a link; what comes in goes out at the other side, in order, after the delay."""

    def __init__(self, link: _Link) -> None:
        self._link = link
        self.other: _End
        self.transport: asyncio.Transport | None = None
        self._pending: deque[tuple[float, bytes]] = deque()
        self.silent = False  # half-open: what comes from here is swallowed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._link.connected(self)

    def data_received(self, data: bytes) -> None:
        if self.silent:
            return
        loop = asyncio.get_running_loop()
        delay_s = self._link.proxy.delay_s
        if not delay_s and not self._pending and self.other.transport is not None:
            self.other.transport.write(data)
            return
        self._pending.append((loop.time() + delay_s, data))
        if len(self._pending) == 1:
            loop.call_later(delay_s, self.forward)

    def forward(self) -> None:
        """Send on what has waited long enough; asks again for the rest."""
        if self.other.transport is None:
            return  # comes again when that side is connected
        now_s = asyncio.get_running_loop().time()
        while self._pending and self._pending[0][0] <= now_s:
            _, data = self._pending.popleft()
            if not self.silent:
                self.other.transport.write(data)
        if self._pending:
            asyncio.get_running_loop().call_later(self._pending[0][0] - now_s, self.forward)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._link.lost(self)


class _Link:
    """Link of a client's connection and the connection to the broker that belongs to it."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client, self.server = _End(self), _End(self)
        self.client.other, self.server.other = self.server, self.client
        self.half_open = False

    def connected(self, end: _End) -> None:
        if end is self.client:
            self.proxy.links.add(self)
            self._task = asyncio.get_running_loop().create_task(self._reach_broker())
        else:
            self.client.forward()

    async def _reach_broker(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: self.server, "127.0.0.1", self.proxy.target_port
            )
        except OSError:
            self.cut()

    def lost(self, end: _End) -> None:
        # Half-open: the client is not told that the other side has gone.
        if end is self.client or not self.half_open:
            self.cut()

    def cut(self) -> None:
        self.proxy.links.discard(self)
        for end in (self.client, self.server):
            if end.transport is not None:
                end.transport.abort()


class Proxy:
    """Proxy that forwards connections of 127.0.0.1 to the broker's port, on a thread of its own.

    Args:
        target_port: the broker's port.
        seed: of the choice which connections are hit.
    """

    def __init__(self, target_port: int, seed: int) -> None:
        self.target_port = target_port
        self.links: set[_Link] = set()
        self.delay_s = 0.0
        self._chance = random.Random(seed)
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def start(self) -> None:
        """Listen; the port is known afterwards."""
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        """Cut everything and end the thread."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    @property
    def url(self) -> str:
        """The broker's URL, by way of the proxy."""
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self, share: float) -> bool:
        """Cut a share of the connections, both sides. False: there was none."""
        return self._for_some(share, _Link.cut)

    def set_delay(self, seconds: float) -> None:
        """Let every piece of data wait so long, in both directions."""
        self.delay_s = seconds

    def leave_half_open(self, share: float) -> bool:
        """From now on nothing comes back over a share of the connections; over half of them nothing arrives.

        False: there was no connection.
        """

        def silence(link: _Link) -> None:
            link.half_open = link.server.silent = True
            link.client.silent = self._chance.random() < 0.5

        return self._for_some(share, silence)

    def cut_half_open(self) -> None:
        """Cut what is half-open still, as a router that forgets it does in the end."""

        def cut() -> None:
            for link in [link for link in self.links if link.half_open]:
                link.cut()

        self._on_loop(cut)

    def _for_some(self, share: float, act: Callable[[_Link], None]) -> bool:
        def run() -> None:
            links = list(self.links)
            for link in self._chance.sample(links, round(share * len(links))):
                act(link)

        some = bool(self.links)
        self._on_loop(run)
        return some

    def _on_loop(self, act: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(act)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await self._loop.create_server(lambda: _Link(self).client, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stopping.wait()
        server.close()
        for link in list(self.links):
            link.cut()
        await asyncio.sleep(0.05)  # the turns of the loop in which they close
