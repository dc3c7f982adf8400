"""The near side of a crossing: the adapter of every delivery, in a network of its own that has a long way to the other.

Jobs come as lines of JSON on the standard input, and what happened goes out the same way.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from crossing.far import BODY, FAR, NEAR, open_tun

from postbacks.settings import Settings
from postbacks.transport.client import CurlClient
from postbacks.transport.outcomes import Outcome
from postbacks.transport.profile import Profile, Tls
from postbacks.transport.transfer import Transfer

FIN, RST = 0x01, 0x04
SETTINGS = Settings(allowed_networks=f"{FAR}/32", connect_timeout_s=10, answer_timeout_s=10)
#: The receiver is its own proxy: a POST through one comes with the whole URL.
PROXIED = SETTINGS.model_copy(update={"proxy_url": f"http://{FAR}:80"})


class FarSide:
    """The process of the far side."""

    def __init__(self, certificate: str) -> None:
        tun = open_tun(NEAR)
        self._process = subprocess.Popen(
            [
                "unshare",
                "--net",
                sys.executable,
                str(Path(__file__).with_name("far.py")),
                str(tun),
                certificate,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[tun],
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def ask(self, order: str, *arguments: Any) -> Any:
        """Have something done there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([order, *arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Sender:
    """An adapter that POSTs many at once, over a connection each."""

    def __init__(self, scheme: str, authority: str, padding_bytes: int, proxied: bool) -> None:
        self._url = f"{scheme}://{FAR}"
        self._profile = Profile(10, 10, tls=Tls(ca_bundle=authority) if scheme == "https" else None)
        self._body = b"x" * padding_bytes + BODY
        self.adapter = CurlClient(PROXIED if proxied else SETTINGS)

    def post(self, paths: list[str], stall: Callable[[], None] | None = None) -> list[Outcome]:
        """POST to these paths; ``stall`` is called once all requests have left, and nothing is looked at meanwhile."""
        transfers = [Transfer(f"{self._url}{path}", self._body, [], self._profile) for path in paths]
        for transfer in transfers:
            self.adapter.start(transfer)
        ended: list[Outcome] = []
        if stall is not None:
            while any(not transfer.sends for transfer in transfers):
                ended += [outcome for _, outcome in self.adapter.wait(0.001)]
            stall()
        while len(ended) < len(paths):
            ended += [outcome for _, outcome in self.adapter.wait(0.05)]
        return ended


def wait_for_silence(far_side: FarSide) -> None:
    """Wait until nothing has been on its way for longer than it takes there and back: a loop that is busy for so long."""
    count = -1
    while True:
        passages = far_side.ask("look")["passages"]
        if len(passages) == count and all(passage["handed_s"] for passage in passages):
            return
        count = len(passages)
        time.sleep(0.2)


def count_crossings(passages: list[dict[str, Any]], since_s: float) -> int:
    """Count the connections on which the far side's end and our request were on their way at the same time."""
    ends: dict[int, dict[str, Any]] = {}
    requests: dict[int, dict[str, Any]] = {}
    for passage in passages:
        if passage["taken_s"] < since_s:
            continue
        if passage["from_near"] and passage["payload_bytes"]:
            requests.setdefault(passage["near_port"], passage)
        elif not passage["from_near"] and passage["flags"] & (FIN | RST):
            ends.setdefault(passage["near_port"], passage)
    return sum(
        end["taken_s"] < requests[port]["handed_s"] and requests[port]["taken_s"] < end["handed_s"]
        for port, end in ends.items()
        if port in requests
    )


def cross(far_side: FarSide, job: dict[str, Any]) -> dict[str, Any]:
    """Let the receiver end connections that rest, and POST over them before its FIN has come; round after round.

    Returns:
        ``outcomes`` of the POSTs with their words, how many ``posts`` the receiver got for each of them, how many
        ``crossed``, and how often the adapter counted a renewal.
    """
    result: dict[str, Any] = {"outcomes": [], "posts": [], "crossed": 0}
    sender = Sender(job["scheme"], job["authority"], job.get("padding_bytes", 0), job.get("proxied", False))
    for number in range(job["rounds"]):
        paths = [f"/post-{number}-{index}" for index in range(job["together"])]
        far_side.ask("begin", *job["delays_s"])
        assert all(outcome.delivered for outcome in sender.post(["/warm"] * len(paths)))
        since_s = time.monotonic()
        far_side.ask("end", job["how"])
        stall = partial(wait_for_silence, far_side) if job.get("stalled") else None
        result["outcomes"] += [(outcome.name, outcome.detail) for outcome in sender.post(paths, stall)]
        seen = far_side.ask("look")
        result["posts"] += [seen["posts"].get(path, 0) for path in paths]
        result["crossed"] += count_crossings(seen["passages"], since_s)
    result["renewals"] = sender.adapter.renewals
    sender.adapter.close()
    return result


def main() -> None:
    """Serve jobs until the input ends."""
    far_side = FarSide(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(cross(far_side, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
