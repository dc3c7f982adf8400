"""TLS in front of a server that has none."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def tls_in_front_of(
    port: int, certificate: str, key: str, *, host: str = "127.0.0.1", at_port: int = 0
) -> Iterator[int]:
    """A TLS listener that passes everything on to a plain port; yields its own port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    loop = asyncio.new_event_loop()
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError, asyncio.CancelledError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(there_writer)
        await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))

    server = loop.run_until_complete(asyncio.start_server(serve, host, at_port, ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def stop() -> None:
        server.close()
        for writer in writers:
            writer.transport.abort()  # whose other side keeps its connection in a pool
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.05)  # the loop closes in its next turn what was aborted

    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
