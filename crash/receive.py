"""The honest receiver: every POST is written to its file before it is answered.

Most get a 200 at once. By the id, some get it late, some a 500 the first time, some are cut off without an
answer although they were taken; accounts called ``bad`` always get a 500.
"""

from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path

from postbacks.receiver import Answer, Received, Receiver

#: What the file says of a POST that was taken and whose answer never left.
CUT_OFF = "cut"


class _Answers:
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._seen: set[str] = set()

    def __call__(self, post: Received) -> Answer:
        one = post.postback_id
        status, answer = self._choose(post, zlib.crc32(one.encode()) % 1000)
        self._seen.add(one)
        os.write(self._file, f"{one} {post.attempt} {post.at:.3f} {status}\n".encode())
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


def main() -> None:
    """Argument: the file. Prints the URL and serves until it is killed."""
    with Receiver(_Answers(Path(sys.argv[1])), keep=False) as receiver:
        print(receiver.url(""), flush=True)
        receiver.serve_forever()


if __name__ == "__main__":
    main()
