"""What each step costs: from docs/benchmarks.json where it is there, else from the calibration of the last check."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.errors import Unusable

#: What a check writes, and the other scenarios read.
FILE: Final = "simulation.json"


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of CPU, unless another unit is named.

    Attributes:
        publish_s: of the broker for one message that ``.delay()`` puts, where many come together.
        turn_s: of the broker for a turn of its event loop, and for the first message in it.
        publish_many_s: the same where ``send_postbacks`` puts hundreds with one command.
        sync_s: that the broker's thread waits for its disk, once a turn with writes (elapsed).
        call_s: of the broker for a script call, whatever it moves.
        asking_s: of the worker for a script call, whatever it moves.
        network_s: from the caller to the broker and back (elapsed).
        take_in_s: of the broker a postback taken in.
        tick_s: of the ticking process a postback taken in: decoding, checking, rendering.
        claim_s: of the broker a postback claimed, sent and noted as delivered.
        park_s: of the broker a postback claimed, sent and noted as failed.
        release_s: of the broker a parked postback that goes back to its lane.
        share_s: of the broker a postback that is held and shares a connect time-out.
        send_s: of the worker a POST with its note.
        decide_s: of the worker what follows a failure, besides.
        record_bytes: of the broker a postback, its XML included.
        message_bytes: of the broker a message in Celery's queue.
    """

    publish_s: float
    turn_s: float
    publish_many_s: float
    sync_s: float
    call_s: float
    asking_s: float
    network_s: float
    take_in_s: float
    tick_s: float
    claim_s: float
    park_s: float
    release_s: float
    share_s: float
    send_s: float
    decide_s: float
    record_bytes: float
    message_bytes: float

    def to_json(self) -> dict[str, float]:
        """As the check writes it."""
        return asdict(self)


def read(docs: Path) -> Costs:
    """The costs in the documents of the repository.

    Raises:
        Unusable: a file is not there or lacks a figure.
    """
    calibrated = _load(docs / FILE, "make simulate ARGS='--scenario check'").get("costs", {})
    try:
        costs = Costs(**{field.name: float(calibrated[field.name]) for field in fields(Costs)})
    except KeyError as missing:
        raise Unusable(f"{docs / FILE} has no cost {missing}; run the check again.") from None
    return with_benchmarks(costs, _load(docs / "benchmarks.json", "make bench")["rows"])


def with_benchmarks(costs: Costs, rows: list[dict[str, Any]]) -> Costs:
    """These costs with what ``make bench`` has measured instead, where its rows have it."""
    from postbacks.delivery.session import CLAIM_BATCH

    numbers = [row["numbers"] for row in rows]
    moves = next((one for one in numbers if "microseconds" in one), None)
    if moves is not None:
        each = {name: value / 1e6 for name, value in moves["microseconds"].items()}
        claim_s = max(each["claim"] - 2 * costs.call_s / CLAIM_BATCH, 0.5 * each["claim"])
        costs = replace(
            costs,
            claim_s=claim_s,
            park_s=costs.park_s * claim_s / costs.claim_s,
            share_s=costs.share_s * claim_s / costs.claim_s,
            take_in_s=each["take_in"],
            tick_s=each["tick"],
            record_bytes=moves["broker_bytes_each"],
        )
    contenders = next((one["contenders"] for one in numbers if "contenders" in one), None)
    if contenders is not None:
        worker_s = contenders["postbacks"]["worker_ms"] / 1000
        send_s = worker_s - costs.tick_s - 2 * costs.asking_s / CLAIM_BATCH
        costs = replace(costs, send_s=max(send_s, 0.3 * worker_s))
    return costs


def _load(path: Path, command: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise Unusable(f"There is no {path}: {command} writes it.") from None
    return found
