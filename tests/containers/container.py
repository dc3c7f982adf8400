"""Container, as far as a process can be one without an engine: run in a mount namespace of its own.

Takes a job (JSON) as its argument, makes a root file system of what this machine has, read-only, with the
service's volumes and tmpfs in it, enters it as another user without capabilities and becomes the command.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

#: What Python and the server need of this machine.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc")
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x04000000, 0x10000000, 0x20000000
PR_SET_NO_NEW_PRIVS = 38
LIBC = ctypes.CDLL(None, use_errno=True)


def mount(*args: str) -> None:
    """mount(8); its message is the error."""
    subprocess.run(["mount", *args], check=True)


def bind(source: str, root: Path, target: str, *, writable: bool = False) -> None:
    """Show a file or directory of this machine at a place under the root, read-only."""
    place = root / target.lstrip("/")
    if Path(source).is_dir():
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.touch()
    mount("--bind", source, str(place))
    if not writable:
        # nosuid and nodev: a user namespace may not drop them where they are set
        mount("-o", "remount,bind,ro,nosuid,nodev", str(place))


def build(root: Path, job: dict) -> None:
    """Mount everything."""
    mount("-t", "tmpfs", "-o", "mode=755", "none", str(root))
    for folder in SYSTEM:
        if Path(folder).is_symlink():
            (root / folder.lstrip("/")).symlink_to(Path(folder).readlink())
        elif Path(folder).is_dir():
            bind(folder, root, folder)
    bind(job["hosts"], root, "/etc/hosts")
    for folder in ("/proc", "/dev"):
        (root / folder.lstrip("/")).mkdir()
    mount("--rbind", "/dev", str(root / "dev"))
    if job.get("is_init"):
        mount("-t", "proc", "proc", str(root / "proc"))
    else:
        mount("--rbind", "/proc", str(root / "proc"))
    for folder in job["tmpfs"]:
        place = root / folder.lstrip("/")
        place.mkdir(parents=True)
        mount("-t", "tmpfs", "-o", "mode=1777,size=64m", "none", str(place))
    for source, target in job["image"]:
        bind(source, root, target)
    for source, target, mode in job["binds"]:
        bind(source, root, target, writable=mode == "rw")
    (root / job["cwd"].lstrip("/")).mkdir(parents=True, exist_ok=True)
    if job["read_only"]:
        mount("-o", "remount,bind,ro", str(root))


def limit_open_files(count: int) -> None:
    """Allow so many open files; where the suite may not raise its own limit, that one has to do."""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
    except (ValueError, OSError):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def become_somebody(uid: int) -> None:
    """Go by another number than that of the superuser, who we are in the suite's namespace: PostgreSQL refuses that one."""
    ours = {"uid": os.getuid(), "gid": os.getgid()}
    if LIBC.unshare(CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    for kind, number in ours.items():
        Path(f"/proc/self/{kind}_map").write_text(f"{uid} {number} 1")


def become_init() -> None:
    """Go on as the first process of a namespace of its own; who we were passes signals on and ends as it does."""
    if LIBC.unshare(CLONE_NEWPID):
        raise OSError(ctypes.get_errno(), "unshare")
    if child := os.fork():
        signal.signal(signal.SIGTERM, lambda number, _: os.kill(child, number))
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def main() -> None:
    """Build, enter, drop what is not needed, become the command."""
    job = json.loads(sys.argv[1])
    if job.get("is_init"):
        become_init()
    if LIBC.unshare(CLONE_NEWNS | CLONE_NEWUTS):
        raise OSError(ctypes.get_errno(), "unshare")
    socket.sethostname(job["hostname"])
    root = Path(job["root"])
    build(root, job)
    if job["uid"] is None and "PGDATA" in job["env"]:
        become_somebody(65534)  # before the chroot, in which the kernel makes no further one
    if job.get("nofile"):
        limit_open_files(job["nofile"])
    os.chroot(root)
    os.chdir(job["cwd"])
    if job["uid"] is not None:
        os.setgroups([])
        os.setgid(job["uid"])
        os.setuid(job["uid"])
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.execvpe(job["argv"][0], job["argv"], job["env"])


main()
