"""Take a picture of Flower's task list: postbacks of some accounts, in headless Chromium.

Starts a broker, a worker, a beat, receivers and Flower, sends postbacks, waits until Flower shows them and
writes the picture. Needs `chromium` (Debian: apt-get install chromium); nothing else of postbacks does.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

PORT = 15555
#: What each account's receiver answers with, and how late.
RECEIVERS = {
    "acme": (200, 0.0), "bluebird": (200, 0.15), "corner-shop": (503, 0.0), "delta-travel": (200, 8.0),
}  # fmt: skip


def shown() -> list[dict]:
    """Return what Flower shows, by its API."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api/tasks?limit=1000", timeout=10) as answer:
            return list(json.load(answer).values())
    except OSError:
        return []


def wait(look, what: str) -> None:
    """Look until it is true, for a minute."""
    for _ in range(240):
        if look():
            return
        time.sleep(0.25)
    raise SystemExit(f"{what} did not happen")


def main() -> None:
    """Run the system, take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    options = parser.parse_args()

    from postbacks.devtools.embedded_broker import EmbeddedBroker
    from postbacks.devtools.receiver import Answer, Receiver
    from postbacks.devtools.stack import CeleryProcess, LocalStack

    def answer(post) -> Answer:
        status, delay_s = RECEIVERS[post.path.strip("/")]
        return Answer(status, delay_s=delay_s)

    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker, Receiver(answer) as receiver:
        logs = Path(folder)
        env = {
            "POSTBACKS_BROKER_URL": broker.url,
            "POSTBACKS_ALLOWED_NETWORKS": "127.0.0.0/8",
            "POSTBACKS_RETRY_COUNTDOWN_S": "6",
            "POSTBACKS_MAX_RESENDS": "2",
            "FLOWER_UNAUTHENTICATED_API": "1",
        }
        stack = LocalStack(broker, env=env, log_dir=logs)
        args = [f"--port={PORT}", "--address=127.0.0.1"]
        flower = CeleryProcess("flower", env=env, args=args, log_path=logs / "flower.log")
        with stack, flower:
            wait(lambda: "taskevents.on" in stack.workers[0].log(), "Flower's turning on of events")
            send(receiver, env)
            wait(lambda: {"FAILURE", "RETRY", "SUCCESS"} <= {one["state"] for one in shown()}, "every state")
            send(receiver, env)  # so that all states stand on the first page
            wait(lambda: "STARTED" in {one["state"] for one in shown()}, "an open POST")
            picture(options.chromium, logs / "profile", options.path)


def send(receiver, env: dict[str, str]) -> None:
    """Send some postbacks of each account, and cancel one."""
    import os

    os.environ.update(env)
    from postbacks import send_postback
    from postbacks.accounts import make_account, redis_accounts
    from postbacks.cli.examples import examples

    events = list(examples().values())
    for name in RECEIVERS:
        redis_accounts().set(make_account(name, url=receiver.url(f"/{name}")))
    later = send_postback.apply_async(("acme", events[0]), countdown=600)
    for number in range(2):
        for name in list(RECEIVERS)[number:]:
            send_postback.delay(name, events[(5 * number + len(name)) % len(events)])
    send_postback.delay("nobody", events[0])
    wait(lambda: any(one["uuid"] == later.id for one in shown()), "the parked one")
    later.revoke()


def picture(chromium: str, profile: Path, path: Path) -> None:
    """Have Chromium draw the task list, newest first."""
    subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--hide-scrollbars", "--virtual-time-budget=4000", "--window-size=1790,752",
            f"--user-data-dir={profile}", f"--screenshot={path.resolve()}",
            f"http://127.0.0.1:{PORT}/tasks",
        ],
        check=True, capture_output=True, timeout=90,
    )  # fmt: skip
    print(f"{path}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
