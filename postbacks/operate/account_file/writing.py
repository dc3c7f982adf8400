"""Export of accounts: a file without a secret, which changes nothing where it is applied to the same store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from postbacks.accounts import redis_accounts
from postbacks.accounts.edit import ALL_ORIGINS
from postbacks.catalogue import ORIGINS
from postbacks.operate.account_file.reading import HEADERS, KEEP, NUMBERS, URLS
from postbacks.urls import redacted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postbacks.accounts import Account

_HEAD: Final = """\
# Accounts of postbacks, for `postbacks account apply`. No secret is in this file: {keep: true} stands for a value that
# stays as it is stored. Another one is read by whoever applies it, from {env: NAME} or {file: PATH}.
"""


class _Dumper(yaml.SafeDumper):
    """Writer of YAML as a person would write it: a certificate as a block, lists and references on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value again where it comes again."""
        del data
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Represent a text."""
        style = "|" if "\n" in text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    def represent_fields(self, fields: dict[str, Any]) -> yaml.MappingNode:
        """Represent a mapping."""
        return self.represent_mapping("tag:yaml.org,2002:map", fields.items(), flow_style=KEEP in fields)

    def represent_values(self, values: list[str]) -> yaml.SequenceNode:
        """Represent a list."""
        return self.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_representer(dict, _Dumper.represent_fields)
_Dumper.add_representer(list, _Dumper.represent_values)


def export(accounts: Iterable[Account] | None = None) -> str:
    """Return accounts as a file; those that cannot be read are named in a comment.

    Args:
        accounts: the accounts; None for all of the store.

    Raises:
        PostbacksError: an application keeps the accounts itself.
        BrokerError: the broker cannot be used.
    """
    known = list(redis_accounts().all() if accounts is None else accounts)
    readable = {account.name: _fields(account) for account in known if not account.unreadable}
    comments = "".join(
        f"# {account.name} is not here: its row cannot be read.\n" for account in known if account.unreadable
    )
    body = yaml.dump({"accounts": readable}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
    return _HEAD + comments + body


def _fields(account: Account) -> dict[str, Any]:
    """Return what the file says of an account: the fields that are set."""
    kept = {KEEP: True}
    fields: dict[str, Any] = {}
    for name in URLS:
        url = getattr(account, name)
        fields[name] = kept if url and redacted(url) != url else url
    fields["off"] = ALL_ORIGINS if account.off == frozenset(ORIGINS) else sorted(account.off)
    fields |= {name: getattr(account, name) for name in NUMBERS}
    fields["weight"] = None if account.weight == 1 else account.weight
    fields["rate"] = account.rate
    fields["ca_bundle"] = account.ca_bundle
    fields["client_cert"] = account.client_cert
    fields["client_key"] = account.client_key and kept
    fields["pinned_keys"] = list(account.pinned_keys)
    fields[HEADERS] = dict.fromkeys(sorted(account.headers), kept)
    if account.authorization:
        fields[HEADERS]["Authorization"] = kept
    fields["secret"] = kept if account.secrets else None
    return {name: value for name, value in fields.items() if value}
