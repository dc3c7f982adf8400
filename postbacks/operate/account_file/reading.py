"""Reading of a file of accounts: its nodes, their lines, and every fault that the file alone shows.

The text of a value is taken as it was typed: ``rate: 50/s``, ``X-Debug: yes`` and ``X-Version: 1.10`` mean what they say, and
no type of YAML turns them into something else.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml

from postbacks.accounts.account import build_account
from postbacks.accounts.edit import ALL_ORIGINS
from postbacks.accounts.headers import check_headers
from postbacks.accounts.pem import check_certificates
from postbacks.accounts.secrets import check_secret
from postbacks.catalogue import ORIGINS
from postbacks.errors import InvalidAccount, InvalidUrl
from postbacks.names import check_name
from postbacks.printable import quoted
from postbacks.urls import read_url

if TYPE_CHECKING:
    from pathlib import Path

#: Bytes that a file of accounts, and a file that it names, may have.
MAX_BYTES: Final = 4 * 1024 * 1024
_MAX_NAMED_BYTES: Final = 1024 * 1024

URLS: Final = ("url", "mo_url", "pass_url")
NUMBERS: Final = ("connect_timeout_s", "answer_timeout_s", "weight", "max_transfers")
CERTIFICATES: Final = ("ca_bundle", "client_cert")
#: Fields that are secrets: no value of one stands in the file.
SECRETS: Final = ("client_key", "secret")
HEADERS: Final = "headers"
FIELDS: Final = (
    *URLS,
    "off",
    *NUMBERS,
    "rate",
    HEADERS,
    *CERTIFICATES,
    "client_key",
    "pinned_keys",
    "secret",
)
#: What a field may say in place of its value.
KEEP, ENV, FILE = "keep", "env", "file"

_NULL: Final = "tag:yaml.org,2002:null"
_HOW: Final = "{env: NAME}, {file: PATH} or {keep: true}"


class Kept:
    """Mark of a value that stays as it is stored."""


KEPT: Final = Kept()


class Fault(NamedTuple):
    """Fault of a file.

    Attributes:
        line: the line where it stands, from 1.
        at: the account and its field, ``acme.rate``; empty for the file as a whole.
        words: what is wrong, and what may be.
    """

    line: int
    at: str
    words: str

    def __str__(self) -> str:
        return f"{self.line}: {self.at}: {self.words}" if self.at else f"{self.line}: {self.words}"


@dataclass
class WrittenAccount:
    """Account as a file writes it.

    Attributes:
        name: the account's name.
        line: where it stands.
        values: its fields; headers by their names. Secrets are the texts that the references lead to.
        lines: where each field stands; a header as ``headers.NAME``.
        is_faulty: True where one of its fields is.
    """

    name: str
    line: int
    values: dict[str, Any] = field(default_factory=dict, repr=False)
    lines: dict[str, int] = field(default_factory=dict)
    is_faulty: bool = False


class Reader:
    """Reader of one file.

    Args:
        directory: where the paths of the file begin.

    Attributes:
        accounts: what the file has.
        faults: what is wrong with it, in no order.
    """

    def __init__(self, directory: Path) -> None:
        self.accounts: dict[str, WrittenAccount] = {}
        self.faults: list[Fault] = []
        self._directory = directory

    def read(self, data: bytes) -> None:
        """Read a file's bytes."""
        root = self._compose(data)
        if root is None:
            return
        pairs = self._pairs(root, "", ("accounts",), "the file")
        if "accounts" not in pairs:
            if not self.faults:
                self._fault(root, "", "it has no accounts: write `accounts:` and, below it, a name each")
            return
        for name, (key, node) in self._pairs(pairs["accounts"][1], "", None, "accounts").items():
            try:
                check_name(name)
            except InvalidAccount as error:
                self._fault(key, "", f"{error}".rstrip("."))
                continue
            self.accounts[name] = WrittenAccount(name, _line(key))
            faults = len(self.faults)
            self._account(self.accounts[name], node)
            self.accounts[name].is_faulty = len(self.faults) > faults

    # -- nodes ----------------------------------------------------------------------------------

    def _compose(self, data: bytes) -> yaml.Node | None:
        if len(data) > MAX_BYTES:
            self.faults.append(Fault(1, "", f"the file has more than {MAX_BYTES:,} bytes"))
            return None
        try:
            text = data.decode("utf-8-sig")
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            self.faults.append(Fault(line, "", "the file is no text in UTF-8"))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            words = " ".join(filter(None, (error.context, error.problem)))
            self.faults.append(Fault(mark.line + 1 if mark else 1, "", f"it is no YAML: {words}"))
        except yaml.reader.ReaderError as error:
            line = text[: error.position].count("\n") + 1
            self.faults.append(
                Fault(
                    line,
                    "",
                    f"it has a character that YAML does not allow, U+{int(error.character):04X}",
                )
            )
        except RecursionError:
            self.faults.append(Fault(1, "", "it is nested too deep"))
        else:
            if root is None:
                self.faults.append(Fault(1, "", "the file is empty"))
            return root
        return None

    def _pairs(
        self, node: yaml.Node, at: str, known: tuple[str, ...] | None, what: str
    ) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return a mapping's keys and values by the text of the key; a key that stands twice is a fault."""
        if not isinstance(node, yaml.MappingNode):
            self._fault(node, at, f"{what} must be a mapping: names, a colon and a value each")
            return {}
        pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if not name:
                self._fault(key, at, "a name is missing before the colon")
            elif name in pairs:
                first = _line(pairs[name][0])
                self._fault(key, at, f"{quoted(name)} stands twice, first in line {first}: leave one of them")
            elif known is not None and name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
                self._fault(key, at, f"{quoted(name)} is unknown: {hint}")
            else:
                pairs[name] = (key, value)
        return pairs

    def _fault(self, node: yaml.Node, at: str, words: str) -> None:
        self.faults.append(Fault(_line(node), at, words))

    # -- fields ---------------------------------------------------------------------------------

    def _account(self, account: WrittenAccount, node: yaml.Node) -> None:
        for name, (key, value) in self._pairs(node, account.name, FIELDS, "an account").items():
            account.lines[name] = _line(key)
            at = f"{account.name}.{name}"
            if name == HEADERS:
                account.values[name] = self._headers(account, value)
                continue
            read = self._field(name, value, at)
            if read is None:
                continue
            account.values[name] = read
            if read is not KEPT:
                self._check(name, read, value, at)

    def _field(self, name: str, node: yaml.Node, at: str) -> Any:
        """Return a field's value; None where it has none, or a fault."""
        if name == "off":
            texts = self._texts(node, at)
            return None if texts is None else frozenset(ORIGINS if ALL_ORIGINS in texts else texts)
        if name == "pinned_keys":
            texts = self._texts(node, at)
            return None if texts is None else tuple(texts)
        if isinstance(node, yaml.MappingNode) and name in (*URLS, *CERTIFICATES, *SECRETS):
            return self._reference(node, at, whole=name in (*CERTIFICATES, "client_key"))
        text = self._text(node, at)
        if text is None:
            return None
        if name in SECRETS:
            self._fault(node, at, f"a secret does not stand in the file: write {_HOW}")
            return None
        if name in URLS and _has_user(text):
            self._fault(node, at, f"a URL with a user or password does not stand in the file: write {_HOW}")
            return None
        if name in NUMBERS:
            try:
                return int(text) if name == "max_transfers" else float(text)
            except ValueError:
                self._fault(node, at, f"{quoted(text)} is no number")
                return None
        return text

    def _headers(self, account: WrittenAccount, node: yaml.Node) -> dict[str, Any]:
        headers: dict[str, Any] = {}
        for name, (key, value) in self._pairs(node, f"{account.name}.{HEADERS}", None, HEADERS).items():
            at = f"{account.name}.{HEADERS}.{name}"
            account.lines[f"{HEADERS}.{name}"] = _line(key)
            is_secret = name.lower() == "authorization"
            if isinstance(value, yaml.MappingNode):
                text = self._reference(value, at, whole=False)
            else:
                text = self._text(value, at)
                if text is not None and is_secret:
                    self._fault(value, at, f"a credential does not stand in the file: write {_HOW}")
                    continue
            if text is None:
                continue
            if any(name.lower() == other.lower() for other in headers):
                self._fault(key, at, "the header stands twice, in two ways of writing its name")
                continue
            headers[name] = text
            if text is not KEPT and not is_secret:
                try:
                    check_headers({name: text})
                except InvalidAccount as error:
                    self._fault(key, at, f"{error}".rstrip("."))
        return headers

    def _text(self, node: yaml.Node, at: str) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._fault(node, at, "it must be one value")
            return None
        if node.tag == _NULL or not node.value:
            self._fault(node, at, "it has no value: give one, or leave the line out")
            return None
        return str(node.value)

    def _texts(self, node: yaml.Node, at: str) -> list[str] | None:
        """Return the texts of a list, or of one value as a list of it."""
        if isinstance(node, yaml.ScalarNode):
            text = self._text(node, at)
            return None if text is None else [text]
        if not isinstance(node, yaml.SequenceNode):
            self._fault(node, at, "it must be a list: [A, B]")
            return None
        texts = [self._text(part, at) for part in node.value]
        return None if None in texts else [text for text in texts if text is not None]

    def _reference(self, node: yaml.Node, at: str, *, whole: bool) -> Any:
        """Return what a reference leads to, or ``KEPT``.

        Args:
            node: the mapping.
            at: where it stands, for a fault.
            whole: whether it is a text of several lines, such as a certificate.
        """
        faults = len(self.faults)
        pairs = self._pairs(node, at, (ENV, FILE, KEEP), "a reference")
        if len(pairs) != 1:
            if len(self.faults) == faults:
                self._fault(node, at, f"write one of {_HOW}")
            return None
        ((kind, (_, value)),) = pairs.items()
        name = self._text(value, at)
        if name is None:
            return None
        if kind == KEEP:
            if name != "true":
                self._fault(value, at, "write {keep: true}, or leave the line out")
                return None
            return KEPT
        text = self._variable(value, at, name) if kind == ENV else self._named_file(value, at, name)
        if text is None or whole:
            return text
        lines = [line.removesuffix("\r") for line in text.split("\n") if line.strip()]
        if len(lines) != 1:
            self._fault(value, at, f"{kind} {quoted(name)} has {len(lines)} lines, not one")
            return None
        return lines[0]

    def _variable(self, node: yaml.Node, at: str, name: str) -> str | None:
        text = os.environ.get(name)
        if not text:
            self._fault(node, at, f"the variable {quoted(name)} is not set here, or empty")
            return None
        return text

    def _named_file(self, node: yaml.Node, at: str, name: str) -> str | None:
        try:
            with (self._directory / name).open("rb") as source:
                data = source.read(_MAX_NAMED_BYTES + 1)
            if len(data) > _MAX_NAMED_BYTES:
                self._fault(node, at, f"the file {quoted(name)} has more than {_MAX_NAMED_BYTES:,} bytes")
                return None
            return data.decode("utf-8-sig")
        except OSError as error:
            self._fault(node, at, f"the file {quoted(name)} cannot be read: {error.strerror}")
        except ValueError:
            self._fault(node, at, f"the file {quoted(name)} is no text, or has no such name")
        return None

    def _check(self, name: str, value: Any, node: yaml.Node, at: str) -> None:
        """Check a field by itself, so that its fault has its line."""
        try:
            if name in CERTIFICATES:
                check_certificates(value, name)
            elif name == "secret":
                check_secret(value)
            else:
                build_account("a", **{name: value})
        except InvalidAccount as error:
            self._fault(node, at, f"{error}".removeprefix(f"{name}: ").rstrip("."))


def _has_user(url: str) -> bool:
    try:
        return bool(read_url(url).userinfo.strip(":"))
    except InvalidUrl:
        return False


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
