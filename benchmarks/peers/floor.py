"""The floor: a bare libcurl multi loop that POSTs ready-made bodies read from memory over kept connections.

No queue, no ledger, no account, no retry: what is left is libcurl, its Python binding and the kernel.
Arguments: number of POSTs, transfers open at a time, a file with one URL a line, and a file of
bodies with a zero byte between them. Begins when a line comes on standard input; prints a line of JSON at the end.
"""

from __future__ import annotations

import json
import selectors
import sys
import time
from pathlib import Path

import pycurl


def main() -> None:
    """POST them all."""
    count, at_once = int(sys.argv[1]), int(sys.argv[2])
    urls = Path(sys.argv[3]).read_text().split()
    bodies = Path(sys.argv[4]).read_bytes().split(b"\0")
    multi = pycurl.CurlMulti()
    selector = selectors.DefaultSelector()
    known: set[int] = set()
    timer_s: float | None = None

    def on_socket(event, fd, _multi, _data):
        if event == pycurl.POLL_REMOVE:
            known.discard(fd)
            selector.unregister(fd)
            return
        mask = (selectors.EVENT_READ if event & pycurl.POLL_IN else 0) | (
            selectors.EVENT_WRITE if event & pycurl.POLL_OUT else 0
        )
        if fd in known:
            selector.modify(fd, mask)
        else:
            known.add(fd)
            selector.register(fd, mask)

    def on_timer(timeout_ms):
        nonlocal timer_s
        timer_s = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000

    multi.setopt(pycurl.M_SOCKETFUNCTION, on_socket)
    multi.setopt(pycurl.M_TIMERFUNCTION, on_timer)
    multi.setopt(pycurl.M_MAXCONNECTS, 2000)
    free = []
    for _ in range(at_once):
        handle = pycurl.Curl()
        handle.setopt(pycurl.POST, 1)
        handle.setopt(pycurl.HTTPHEADER, ["Content-Type: application/xml; charset=utf-8", "Expect:"])
        handle.setopt(pycurl.WRITEFUNCTION, len)
        handle.setopt(pycurl.NOSIGNAL, 1)
        free.append(handle)
    print("ready", flush=True)
    sys.stdin.readline()
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    begun = ended = good = connections = 0
    while ended < count:
        while free and begun < count:
            handle = free.pop()
            handle.setopt(pycurl.URL, urls[begun % len(urls)])
            handle.setopt(pycurl.POSTFIELDS, bodies[begun])
            multi.add_handle(handle)
            begun += 1
        wait_s = 1.0 if timer_s is None else max(0.0, timer_s - time.monotonic())
        for key, mask in selector.select(wait_s):
            flags = (pycurl.CSELECT_IN if mask & selectors.EVENT_READ else 0) | (
                pycurl.CSELECT_OUT if mask & selectors.EVENT_WRITE else 0
            )
            multi.socket_action(key.fd, flags)
        if timer_s is not None and time.monotonic() >= timer_s:
            timer_s = None
            multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        queued = 1
        while queued:
            queued, succeeded, failed = multi.info_read()
            for handle in [*succeeded, *(one for one, _, _ in failed)]:
                good += handle.getinfo(pycurl.RESPONSE_CODE) == 200
                connections += handle.getinfo(pycurl.NUM_CONNECTS)
                multi.remove_handle(handle)
                free.append(handle)
                ended += 1
    print(
        json.dumps(
            {
                "took_s": time.monotonic() - began_s,
                "cpu_s": time.process_time() - began_cpu_s,
                "good": good,
                "connections": connections,
            }
        )
    )


if __name__ == "__main__":
    main()
