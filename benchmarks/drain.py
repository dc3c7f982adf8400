"""A backlog for 100 accounts is let go: CPU a postback and postbacks a second, beside everybody else."""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import fill
from benchmarks.machine import commands
from benchmarks.receiving import Receiver
from benchmarks.scenario import Bench, Row, environment, until
from benchmarks.systems import Kannel, Ours, Peer
from postbacks import keys
from postbacks.devtools.embedded_broker import EmbeddedBroker

ACCOUNTS = 100
#: Worker processes: the broker has the other core. Two deliver no more here: the cores are full.
WORKERS = 1
WAIT_S = 240


def ours(bench: Bench, count: int, *, history_url: str = "") -> dict[str, Any]:
    """The whole way from Celery's queue to the note of the answer: take-in, lanes, POSTs, ledger; with a history the feed."""
    with EmbeddedBroker() as broker, Receiver(count) as receiver, environment(broker.url) as env:
        client = broker.client()
        names = [f"a{number}" for number in range(ACCOUNTS)]
        fill.set_accounts(names, receiver.url)
        messages = fill.Messages(client)
        with Ours(broker, env, bench.folder, workers=WORKERS, history_url=history_url) as system:
            until(lambda: not client.hexists(keys.HISTORY, "resync"), WAIT_S, "the first resync")
            system.hold()
            messages.push(range(count), lambda number: names[number % ACCOUNTS])
            assert client.llen(keys.QUEUE) == count
            before, receiver_before_s = system.cpu(), receiver.cpu_s()
            calls_before, in_before = commands(client), client.info("stats")["total_net_input_bytes"]
            began_s = time.monotonic()
            system.let_go()
            stats = receiver.wait_for(count, WAIT_S)
            until(lambda: client.zcard(keys.DONE) == count, WAIT_S, "the notes of all answers")
            after = system.cpu()
            calls = commands(client)
            in_bytes = client.info("stats")["total_net_input_bytes"] - in_before
            assert bool(history_url) == bool(client.xlen(keys.CHANGES)), (
                "the feed is on where there is a history"
            )
            system.let_record()
        receiver.check(range(count))
        spent = {name: calls[name][1] - calls_before.get(name, (0, 0))[1] for name in calls}
        return _result(count, before, after, began_s, stats, receiver.cpu_s() - receiver_before_s) | {
            "commands": sum(calls[name][0] - calls_before.get(name, (0, 0))[0] for name in calls) / count,
            "evalsha_ms": spent.get("evalsha", 0) / 1000 / count,
            "broker_in_bytes": in_bytes / count,
        }


def peer(bench: Bench, name: str, count: int) -> dict[str, Any]:
    """A Celery peer: from its queue to the acknowledgement of the task."""
    with EmbeddedBroker() as broker, Receiver(count) as receiver, environment(broker.url) as env:
        client = broker.client()
        documents = [fill.document(number).decode() for number in range(count)]
        with Peer(broker, name, env, bench.folder) as system:
            system.hold()
            sys.path.insert(0, str(Path(__file__).parent / "peers"))
            module = importlib.import_module(name)
            module.app.conf.broker_url = broker.url
            with module.app.connection_for_write() as connection:
                producer = module.app.amqp.Producer(connection)
                with producer.batch():
                    for number, xml in enumerate(documents):
                        url = receiver.url(number % ACCOUNTS)
                        module.post.apply_async((url, xml), producer=producer)
            before, receiver_before_s = system.cpu(), receiver.cpu_s()
            began_s = time.monotonic()
            system.let_go()
            stats = receiver.wait_for(count, WAIT_S)
            until(lambda: not client.hlen("unacked") and not client.llen(name), WAIT_S, "the peer's end")
            after = system.cpu()
        receiver.check(range(count))
        return _result(count, before, after, began_s, stats, receiver.cpu_s() - receiver_before_s)


def floor(bench: Bench, count: int) -> dict[str, Any]:
    """The floor: libcurl and nothing else."""
    with Receiver(count) as receiver:
        urls, bodies = bench.folder / "urls", bench.folder / "bodies"
        urls.write_text("\n".join(receiver.url(number) for number in range(ACCOUNTS)))
        bodies.write_bytes(b"\0".join(fill.document(number) for number in range(count)))
        script = Path(__file__).parent / "peers" / "floor.py"
        process = subprocess.Popen(
            [sys.executable, script, str(count), str(ACCOUNTS), urls, bodies],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        process.stdout.readline()
        receiver_before_s = receiver.cpu_s()
        out, _ = process.communicate("go\n", timeout=WAIT_S)
        said = json.loads(out)
        assert said["good"] == count
        receiver.check(range(count))
        return {
            "per_s": count / said["took_s"],
            "cpu_ms": 1000 * said["cpu_s"] / count,
            "receiver_ms": 1000 * (receiver.cpu_s() - receiver_before_s) / count,
            "connections": said["connections"],
        }


def kannel(bench: Bench, count: int) -> dict[str, Any]:
    """Kannel's post-xml: messages come in by a socket, are kept in memory, and are POSTed."""
    with Receiver(count) as receiver, Kannel(receiver.url(0), bench.folder) as system:
        before, receiver_before_s = system.cpu(), receiver.cpu_s()
        began_s = time.monotonic()
        stats: dict[str, Any] = {}
        system.send(
            (fill.mark(number) for number in range(count)),
            lambda: stats.update(receiver.wait_for(count, WAIT_S)),
        )
        after = system.cpu()
        receiver.check(range(count))
        return _result(count, before, after, began_s, stats, receiver.cpu_s() - receiver_before_s)


def _result(
    count: int, before: dict[str, float], after: dict[str, float], began_s: float, stats: dict[str, Any],
    receiver_s: float,
) -> dict[str, Any]:  # fmt: skip
    parts = {name: 1000 * (after[name] - before[name]) / count for name in after}
    return {
        "per_s": count / (stats["last_s"] - began_s),
        "cpu_ms": sum(parts.values()),
        **{f"{name}_ms": value for name, value in parts.items()},
        "receiver_ms": 1000 * receiver_s / count,
        "connections": stats["connections"],
    }


def run(bench: Bench) -> list[Row]:
    """All contenders in turn, round by round; medians."""
    many, few = (6_000, 300) if bench.quick else (50_000, 3_000)
    contenders = {
        "postbacks": lambda: ours(bench, many),
        "textbook": lambda: peer(bench, "textbook", few),
        "session": lambda: peer(bench, "session", few),
        "floor": lambda: floor(bench, many),
    }
    if Kannel.present():
        contenders["kannel"] = lambda: kannel(bench, many // 2)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for number in range(bench.rounds):
        if number and bench.spent > number * 0.12:
            break
        for name, measure in contenders.items():
            one = measure()
            rounds[name].append(one)
            bench.say(f"{name}: {one['per_s']:,.0f}/s, {one['cpu_ms']:.3f} ms CPU each")
    found = {
        name: {key: statistics.median(one[key] for one in ones) for key in ones[0]}
        for name, ones in rounds.items()
    }
    bench.found["per_s"] = found["postbacks"]["per_s"]
    return _rows(found, many)


def _rows(found: dict[str, dict[str, float]], many: int) -> list[Row]:
    us, textbook, session, bare = (found[name] for name in ("postbacks", "textbook", "session", "floor"))
    fraction, floors = textbook["cpu_ms"] / us["cpu_ms"], us["cpu_ms"] / bare["cpu_ms"]
    times = us["per_s"] / textbook["per_s"]
    rows = [
        Row(
            "CPU per delivered postback, all processes and the broker, beside textbook",
            "at most 1/15 of it",
            f"1/{fraction:.1f} ({us['cpu_ms']:.3f} ms beside {textbook['cpu_ms']:.2f} ms; "
            f"session 1/{session['cpu_ms'] / us['cpu_ms']:.1f}, {session['cpu_ms']:.2f} ms)",
            fraction >= 15,
            {"contenders": found, "textbook_over_ours": fraction},
        ),
        Row(
            "the same beside the floor, a bare libcurl loop",
            "at most 5 times",
            f"{floors:.1f} times ({bare['cpu_ms']:.3f} ms)",
            floors <= 5,
            {"ours_over_floor": floors},
        ),
    ]
    if "kannel" in found:
        other = found["kannel"]
        cpu, rate = us["cpu_ms"] / other["cpu_ms"], us["per_s"] / other["per_s"]
        rows.append(
            Row(
                "the same beside Kannel post-xml: CPU and rate",
                "below its CPU, above its rate",
                f"{cpu:.2f} of its CPU ({other['cpu_ms']:.3f} ms), {rate:.2f} times its rate ({other['per_s']:,.0f}/s)",
                cpu < 1 and rate > 1,
                {"cpu_over_kannel": cpu, "rate_over_kannel": rate},
            )
        )
    else:
        rows.append(
            Row("the same beside Kannel post-xml: CPU and rate", "below its CPU, above its rate",
                "not run: no Kannel here (apt-get install kannel)", None)
        )  # fmt: skip
    rows.append(
        Row(
            f"postbacks/s, drain of {many:,} waiting for {ACCOUNTS} accounts",
            "at least 15 times textbook",
            f"{times:.1f} times ({us['per_s']:,.0f}/s beside {textbook['per_s']:,.0f}/s; "
            f"session {us['per_s'] / session['per_s']:.1f} times)",
            times >= 15,
            {"ours_over_textbook": times},
        )
    )
    room = 1000 / bare["receiver_ms"] / us["per_s"]
    rows.append(
        Row(
            "the receiver is not the bottleneck: what its CPU would carry, over our rate",
            "at least 3 times",
            f"{room:.1f} times ({bare['receiver_ms']:.4f} ms a POST, counted to nobody)",
            room >= 3,
            {"receiver_over_ours": room},
        )
    )
    return rows
