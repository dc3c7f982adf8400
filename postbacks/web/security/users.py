"""File of users: a line ``name:role:hash`` each, made by ``postbacks web user add``. ``#`` begins a comment.

A line without a hash gives a role to somebody whom a proxy names, and lets nobody log in by a password. The file is read again
when it has changed, so a user who is taken out is out at once.
"""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from postbacks.errors import BadSetting
from postbacks.logs import EventLog
from postbacks.operate.identity import MAX_USER
from postbacks.web.security import passwords
from postbacks.web.security.roles import ROLES

log = EventLog(__name__)

#: Bytes of a file that are read.
_BYTES_MAX: Final = 1_000_000
_NAME: Final = re.compile(r"[^\s:#][^:]*")


class User(NamedTuple):
    """User of the file.

    Attributes:
        name: as it is typed, and as the journal has it.
        role: one of ``ROLES``.
        hash: of the password; empty where a proxy alone can name the user.
    """

    name: str
    role: str
    hash: str

    @property
    def mark(self) -> str:
        """Mark of role and password: a session of another one has ended."""
        return sha256(f"{self.role}:{self.hash}".encode()).hexdigest()[:16]


class Users:
    """Users of a file, as it is now.

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._version: tuple[int, int, int] | None = None
        self._users: dict[str, User] = {}

    def find(self, name: str) -> User | None:
        """Find a user; nobody is found while the file cannot be read, and the log says why."""
        try:
            stat = self._path.stat()
            version = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        except OSError:
            version = None
        if version is None or version != self._version:
            self._version = version
            try:
                self._users = read(self._path)
            except BadSetting as error:
                self._users = {}
                log.error("web.users", str(error))  # noqa: TRY400 - a sentence says all
        return self._users.get(name)


def read(path: Path) -> dict[str, User]:
    """Read all users.

    Raises:
        BadSetting: the file cannot be read; names the line.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_BYTES_MAX).decode()
    except OSError as error:
        raise BadSetting(
            f"POSTBACKS_WEB_USERS: {path} cannot be read ({error.strerror}); `postbacks web user add NAME --role viewer` "
            "makes it."
        ) from None
    except UnicodeDecodeError:
        raise BadSetting(f"POSTBACKS_WEB_USERS: {path} is no text in UTF-8.") from None
    users: dict[str, User] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        role, _, of_file = rest.partition(":")
        trouble = _trouble(name, role, of_file) or ("stands twice" if name in users else "")
        if trouble:
            raise BadSetting(
                f"POSTBACKS_WEB_USERS: line {number} of {path} {trouble}; a line is name:role:hash, as "
                "`postbacks web user add` writes it."
            )
        users[name] = User(name, role, of_file)
    return users


def _trouble(name: str, role: str, of_file: str) -> str:
    if not is_name(name):
        return f"has no name of 1 to {MAX_USER} printable characters"
    if role not in ROLES:
        return f"has no role ({', '.join(ROLES)})"
    if of_file and not passwords.is_hash(of_file):
        return "has no hash of a password"
    return ""


def is_name(name: str) -> bool:
    """Tell whether somebody can be called so."""
    return (
        _NAME.fullmatch(name) is not None
        and name.isprintable()
        and len(name) <= MAX_USER
        and name == name.strip()
    )


def write(path: Path, name: str, role: str, of_file: str) -> bool:
    """Add a user, or give a known one another role and password; other lines and comments stay.

    Returns:
        True where the user is new.

    Raises:
        BadSetting: the file as it stands cannot be read.
        OSError: it cannot be written.
    """
    return _change(path, name, f"{name}:{role}:{of_file}")


def remove(path: Path, name: str) -> bool:
    """Take a user out; False where there is none of this name.

    Raises:
        BadSetting: the file as it stands cannot be read.
        OSError: it cannot be written.
    """
    return not _change(path, name, None)


def _change(path: Path, name: str, line: str | None) -> bool:
    """Put a user's line in the place of the old one, or take it out; return whether there was none."""
    lines: list[str] = []
    is_new = True
    if path.exists():
        read(path)
        for old in path.read_text().splitlines():
            if old.strip().partition(":")[0] != name:
                lines.append(old)
            else:
                is_new = False
                lines += [line] if line is not None else []
    if is_new and line is not None:
        lines.append(line)
    # Never half a file: a web process may read it at any time.
    descriptor, made_name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    made = Path(made_name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write("".join(f"{each}\n" for each in lines))
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            stat = path.stat()
            made.chmod(stat.st_mode & 0o777)
            with suppress(PermissionError):
                os.chown(made, stat.st_uid, stat.st_gid)
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    return is_new
