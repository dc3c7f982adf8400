"""docs/benchmarks.md, its JSON and its plots, from the rows of a run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.scenario import Row

_HEAD = """\
# Benchmarks

[All pages](README.md) · [Glossary](glossary.md)

Made by `{command}` on {date}, in {took_s:.0f} s; do not edit by hand. The same figures as data:
[benchmarks.json](benchmarks.json).

Machine: {cpu}, {cores} cores, {memory_gb} GB; {system}; Python {python};
{broker}; celery {celery}, kombu {kombu}, redis-py {redis_py}, libcurl {libcurl}.
Load average before the run: {load_before:.1f}. Broker, workers, receiver and generator share these cores.

Figures are ratios or CPU time. They are medians of rounds in which the contenders take turns, as machines drift.
All contenders have the same kind of broker: append-only file, `appendfsync always`.

## Targets

"""

_METHOD = """
## How it is measured

* **The way** goes from the message in Celery's queue to the note of the answer: take-in, rendering, lanes, POST,
  ledger. Workers run before the backlog is put in. SIGSTOP stops the beat (or the peer's worker) meanwhile, so that
  neither the start of Python nor the caller is in the figure. What the caller pays is a row of its own.
* **CPU** is user and system time of all processes of a contender and their children, with its broker, from
  `/proc/PID/stat`. Receiver and generator are counted to nobody.
* **Ours** is one worker and a beat. The broker has the other core, and a second worker adds nothing to full cores.
* **Textbook** ([benchmarks/peers/textbook.py](../benchmarks/peers/textbook.py)) is a Celery task with `requests.post`,
  Celery's own retry, prefork with two processes, acks late. **Session** is the same with one `requests.Session` a
  process. Both drain fewer postbacks than ours; their rate does not depend on the number. **Floor** is a bare libcurl
  multi loop that sends ready-made bodies from memory over kept connections. **Kannel** 1.4.5 gets its messages by a
  socket, keeps them in memory only, and POSTs them to one host.
* **Hosts**: every account has an address of 127.0.0.0/8 to itself, for all contenders but Kannel.
* **The receiver** (`benchmarks/receiver.c`) checks Content-Length, the form of the body and the number in it, and
  answers 200. At the end every number must have come, exactly once.
* **Latency** is from just before `.delay()` to the arrival at the receiver, by one machine's monotonic clock. A tick
  comes every second, so half a second of the latency is the mean wait for the tick.
* **Parked**: 500 is answered until all are parked, in three parts. The worker's growth is that of the third part. The
  first two parts open the connections and make the handles of both the worker's clients; the third would show whether
  anything is kept. The countdown is an hour, cut short for all alike once all are parked. A resend is due that long
  after the arrival of the first POST. It is measured against a sender that never rests, of the rate at which the POSTs
  failed.
* **New accounts while others hang**: one worker. Each of the accounts that hang has 20 postbacks, and a receiver that
  takes each POST and answers nothing. A new account's first postback comes every 0.53 s, from when the others are new
  until most of them have failed. Beside each goes a postback of an account that is known to be well, which has the wait
  for the tick alone.
* **Every script at its worst**: the state is copied from a record that `accept.lua` has made. For each case the lanes
  are brought to their state, and the broker's CPU (`/proc/PID/task/*/schedstat`) is read before and after one call.
  Whatever else runs on the machine adds to it, so the least of three rounds is judged. The monitor's pages and the
  doctor's look for ids are the mean of several calls.
* **A million**: the microseconds that the broker itself reports for its scripts (`INFO commandstats`), on two brokers
  in turn.
* **History: search**: rows as a month makes them (`benchmarks/history_rows.py`): 200 accounts of very different size,
  all events, 97% delivered at once, each with its document. Each of 31 filters is measured alone and with each other
  one, as a page of 20 and as a count, by `postbacks.history` in a process that has imported it. The figure is the CPU of
  that process, the least of three calls, with the pages of the file in memory. A whole command takes its start and
  imports besides, which is a row of its own.
* **History: recorder**: postbacks are accepted and delivered by the moves themselves, without POSTs. First a recorder
  finds them all in the feed. Then one keeps up with 1,000/s, and the age of the oldest change that it has not recorded
  is looked at 50 times a second. Bytes written are those of the process (`/proc/self/io`), of PostgreSQL those of its
  write-ahead log.
* **History: delivery beside it**: the drain of this page with the feed on and off, in turns. The recorder that has
  turned it on is held meanwhile: what its reading costs the broker is in its own row, and named beside the ratio.
* **History: disk and pruning**: receipts of 410 bytes with two business values, as the recorder's writer writes them. Old
  ones are pruned while others are written, a slice after each batch of 1,000, and another connection searches every
  20 ms.
* **Dashboard: pages**: the rows of the searches, accepted within the last 24 hours, as pages count a day. The application
  runs in the measuring process. A first look finds nothing in the reading layer; the pages of the file are in memory. CPU
  is that of the process until the answer is there. A page does not wait for counts that take longer than a moment: they
  come with its live part, which is asked for just behind it. Statements and commands are those of both.
* **Dashboard: viewers**: fifty ask for live parts every 2 s, each with its ETag, beside a steady load and a drain, in
  turns with nobody.
"""

#: Searches that users of peers complain of, each with its source.
_PEERS = """
## What users of peers report

Lists and searches over the tables that a queue works on. What they report is from other machines, and says nothing of
what these projects do today.

| what | reported |
| --- | --- |
| GoodJob (PostgreSQL), dashboard of an application with many jobs | 45 s ([#1366](https://github.com/bensheldon/good_job/issues/1366)) |
| GoodJob, dashboard with 700,000 jobs, 3.5 million before | does not load ([#1532](https://github.com/bensheldon/good_job/issues/1532)) |
| Oban Web (PostgreSQL), list of jobs by state, more than 5 million | the query times out ([#1140](https://github.com/oban-bg/oban/issues/1140)) |
| Solid Queue Dashboard (MySQL), first page with 2.5 million jobs | more than 5 minutes ([#2](https://github.com/akodkod/solid-queue-dashboard/issues/2)) |
| Outpost (PostgreSQL), latest attempt of an event while the disk is busy | 40 s and more ([#1064](https://github.com/hookdeck/outpost/pull/1064)) |
| Svix (PostgreSQL), attempts of an endpoint | "very slow", no index fits ([#2183](https://github.com/svix/svix-webhooks/issues/2183)) |
"""


def table(rows: Sequence[Row]) -> str:
    """The table of targets."""
    words = {True: "yes", False: "**no**", None: "-"}
    lines = ["| figure | target | measured | met |", "| --- | --- | --- | --- |"]
    lines += [f"| {row.figure} | {row.target or '-'} | {row.measured} | {words[row.met]} |" for row in rows]
    return "\n".join(lines)


def write(folder: Path, rows: Sequence[Row], machine: dict[str, Any], *, command: str, took_s: float) -> None:
    """Write benchmarks.md, benchmarks.json and the plots."""
    date = time.strftime("%Y-%m-%d", time.gmtime())
    data = {
        "command": command,
        "date": date,
        "took_s": round(took_s),
        "machine": machine,
        "rows": [
            {
                "figure": row.figure,
                "target": row.target,
                "measured": row.measured,
                "met": row.met,
                "numbers": row.numbers,
            }
            for row in rows
        ],
    }
    (folder / "benchmarks.json").write_text(json.dumps(rounded(data), indent=1) + "\n")
    contenders = next((row.numbers["contenders"] for row in rows if "contenders" in row.numbers), {})
    text = _HEAD.format(command=command, date=date, took_s=took_s, **machine) + table(rows) + "\n"
    if contenders:
        text += "\n## Contenders\n\n" + _contenders(contenders)
        plots = folder / "benchmarks"
        plots.mkdir(exist_ok=True)
        _plot(
            plots / "cpu.svg",
            "CPU a postback, ms (broker included)",
            {n: c["cpu_ms"] for n, c in contenders.items()},
        )
        _plot(plots / "rate.svg", "postbacks a second", {n: c["per_s"] for n, c in contenders.items()})
        text += "\n![CPU a postback](benchmarks/cpu.svg)\n![postbacks a second](benchmarks/rate.svg)\n"
    (folder / "benchmarks.md").write_text(text + worst_cases(rows) + web_pages(rows) + _PEERS + _METHOD)


def worst_cases(rows: Sequence[Row]) -> str:
    """The table of scripts at their worst; empty where they were not measured."""
    numbers = next((row.numbers for row in rows if "worst_cases_ms" in row.numbers), None)
    if numbers is None:
        return ""
    lines = [
        f"| {case} | {least_ms:.1f} ms | {most_ms:.1f} ms |"
        for case, (least_ms, most_ms) in numbers["worst_cases_ms"].items()
    ]
    return (
        f"\n## Every script at its worst\n\n{numbers['accounts']:,} accounts, {numbers['waiting']:,} waiting: one in the "
        "lane of each account, the others in one lane. The figures are the\nbroker's CPU for one call. The least of "
        "three rounds is to be at most 50 ms.\n\n"
        "| script | least of three rounds | most |\n| --- | --- | --- |\n" + "\n".join(lines) + "\n"
    )


def web_pages(rows: Sequence[Row]) -> str:
    """The tables of the dashboard's pages; empty where they were not measured."""
    return "".join(
        f"\n## Dashboard, page by page: {row.numbers['rows']:,} postbacks\n\n"
        f"Milliseconds of CPU, then of time: the median, and the worst behind the stroke. A first look is to take at most "
        f"{row.numbers['target_ms']} ms.\n\n"
        "| page | first look, CPU | time | live part with its counts, CPU | time | again, CPU | statements | commands | bytes |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        + "".join(
            f"| `{name}` | "
            + " | ".join(
                "{:.0f} / {:.0f}".format(*page[times])
                for times in ("cpu_ms", "wall_ms", "live_cpu_ms", "live_wall_ms", "again_ms")
            )
            + f" | {page['statements']} | {page['commands']} | {page['bytes']:,} |\n"
            for name, page in row.numbers["pages"].items()
        )
        for row in rows
        if "pages" in row.numbers
    )


def _contenders(contenders: dict[str, dict[str, float]]) -> str:
    lines = [
        "| contender | postbacks/s | CPU each | of which | connections |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, one in contenders.items():
        parts = ", ".join(
            f"{key.removesuffix('_ms')} {value:.3f}"
            for key, value in one.items()
            if key.endswith("_ms") and key not in {"cpu_ms", "receiver_ms", "evalsha_ms"}
        )
        lines.append(
            f"| {name} | {one['per_s']:,.0f} | {one['cpu_ms']:.3f} ms | {parts or '-'} | {one['connections']:,.0f} |"
        )
    us = contenders["postbacks"]
    return "\n".join(lines) + (
        f"\n\nOurs: {us['commands']:.1f} broker commands a postback (those inside scripts included), "
        f"{us['broker_in_bytes']:.0f} bytes to the broker, {us['evalsha_ms'] * 1000:.0f} µs in its scripts.\n"
    )


def plotting() -> Any:
    """Set up the plots: SVG whose text stays text, and which is the same for the same figures."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text: a third of the size
    mpl.rcParams["svg.hashsalt"] = "postbacks"  # the same figures give the same file
    from matplotlib import pyplot as plt

    return plt


def _plot(path: Path, title: str, values: dict[str, float]) -> None:
    plt = plotting()
    figure, axes = plt.subplots(figsize=(7, 2.2))
    names = list(values)
    bars = axes.barh(
        names, list(values.values()), color=["#1f6f8b" if n == "postbacks" else "#b8c4c9" for n in names]
    )
    axes.bar_label(
        bars, [f"{value:,.3g}" if value < 100 else f"{value:,.0f}" for value in values.values()], padding=3
    )
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def rounded(value: Any) -> Any:
    """Four digits of every number."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if value < 1e6 else round(value)
    if isinstance(value, dict):
        return {str(key): rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return value
