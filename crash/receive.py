"""Two honest hosts: every POST is judged and written to their file before it is answered.

Most get a 200 at once. By the id, some get it late, some a 500 the first time, some are cut off without an
answer although they were taken; accounts called ``bad`` always get a 500.
"""

from __future__ import annotations

import os
import sys
import zlib
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from standardwebhooks import Webhook, WebhookVerificationError

from crash.comparison import CUT_OFF, UNSIGNED, WRONG_HOST, WRONG_KEY, WRONG_SIGNATURE, Post
from crash.customers import KEY, host_of, key_of, secret_of
from crash.notes import read_notes
from postbacks.devtools.receiver import Answer, Received, Receiver

#: How far a signature's generation may be from the last one that was seen; one of a call's own URL is found by trying.
NEAR: Final = 40


class Judged(NamedTuple):
    """Account and generation that a POST was made with, and its problem; ``-`` for none."""

    account: str
    generation: int
    problem: str


class Judge:
    """Judge of each POST: did it come to its host, with that host's key, signed by its account?"""

    def __init__(self) -> None:
        self._latest: dict[str, int] = {}

    def judge(self, host: int, post: Received) -> Judged:
        """Judge a POST that came to a host."""
        _, account, generation = post.path.split("/")
        if account != "own":
            return Judged(account, int(generation), self._problem(host, post, account, int(generation)))
        account = generation  # of a call's own URL: /own/ACCOUNT
        if "webhook-signature" not in post.headers:
            return Judged(account, -1, UNSIGNED)
        latest = self._latest.get(account, 0)
        for number in range(max(0, latest - NEAR), latest + NEAR):
            if _is_signed(post, account, number):
                self._latest[account] = max(latest, number)
                expected = key_of(account, number) if host_of(account, number) == host else None
                return Judged(
                    account, number, "-" if post.headers.get(KEY.lower()) == expected else WRONG_KEY
                )
        return Judged(account, -1, WRONG_SIGNATURE)

    def _problem(self, host: int, post: Received, account: str, generation: int) -> str:
        self._latest[account] = max(self._latest.get(account, 0), generation)
        if host != host_of(account, generation):
            return WRONG_HOST
        if "webhook-signature" not in post.headers:
            return UNSIGNED
        if not _is_signed(post, account, generation):
            return WRONG_SIGNATURE
        return "-" if post.headers.get(KEY.lower()) == key_of(account, generation) else WRONG_KEY


def _is_signed(post: Received, account: str, generation: int) -> bool:
    try:
        Webhook(secret_of(account, generation)).verify(post.body, post.headers, json_parse=False)
    except WebhookVerificationError:
        return False
    return True


class _Answers:
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._seen: set[str] = set()
        self._judge = Judge()

    def answer(self, host: int, post: Received) -> Answer:
        status, answer = self._choose(post, zlib.crc32(post.postback_id.encode()) % 1000)
        judged = self._judge.judge(host, post)
        self._seen.add(post.postback_id)
        line = f"{post.postback_id} {post.attempt} {post.at:.3f} {status} {judged.account} {judged.generation} {judged.problem}\n"
        os.write(self._file, line.encode())
        return answer

    def _choose(self, post: Received, chance: int) -> tuple[str, Answer]:
        if post.path.startswith("/bad"):
            return "500", Answer(500)
        if post.postback_id not in self._seen:
            if chance < 40:
                return "500", Answer(500, delay_s=0.2 * (chance % 3))
            if chance < 45:
                return CUT_OFF, Answer(action="reset")
        if chance >= 960:
            return "200", Answer(delay_s=(chance - 955) / 30)
        return "200", Answer()


def read_posts(path: Path) -> list[Post]:
    """Return what the hosts wrote down, in order."""
    return [
        Post(
            postback_id,
            int(attempt),
            float(at),
            status,
            account,
            int(generation),
            "" if problem == "-" else problem,
        )
        for postback_id, attempt, at, status, account, generation, problem in read_notes(path)
    ]


def main() -> None:
    """Print the hosts' URLs and serve until killed. Argument: the file."""
    answers = _Answers(Path(sys.argv[1]))
    with (
        Receiver(partial(answers.answer, 0), keep=False) as first,
        Receiver(partial(answers.answer, 1), keep=False) as second,
    ):
        print(first.url(""), second.url(""), flush=True)
        first.serve_forever()


if __name__ == "__main__":
    main()
