"""Maximum transfers of a process, by its limit of open files: tried in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
soft, hard = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from postbacks.transport.limits import max_transfers
from postbacks.settings import Settings
print(max_transfers(Settings()), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "transfers"), [(1024, 8192, 2000), (1024, 4096, 1132), (1024, 1024, 170), (256, 256, 42)]
)
def test_transfers_are_as_many_as_open_files_allow(soft, hard, transfers):
    """The soft limit is raised as far as it is needed; what then still lacks costs transfers, two and a look-up each."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(soft), str(hard)], capture_output=True, text=True, check=True
    )
    allowed, limit = map(int, done.stdout.split())
    assert allowed == transfers
    assert allowed * 2 < limit
