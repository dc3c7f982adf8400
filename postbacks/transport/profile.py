"""Profile of an account: the limits, TLS, extra headers and signatures of its POSTs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError

from postbacks.accounts import UNREADABLE, Account
from postbacks.accounts.headers import check_authorization
from postbacks.accounts.routing import reason_words
from postbacks.accounts.secrets import decrypt
from postbacks.errors import InvalidAccount
from postbacks.settings import Settings
from postbacks.urls import endpoint_of


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS of an account where it differs from the defaults. PEM texts."""

    ca_bundle: str | None = None
    client_cert: str | None = None
    client_key: str | None = field(default=None, repr=False)
    pinned_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """The delivery settings of one account.

    Attributes:
        connect_timeout_s: limit of name look-up, TCP, TLS and proxy together.
        answer_timeout_s: limit from the connection to the whole header of the answer.
        headers: extra ``Name: value`` lines.
        authorization: line of the Authorization header, for URLs that have no user; empty for none.
        signers: a signer for each secret that signs now, the current one first.
        tls: the account's own TLS; None for the defaults.
        until_ms: time at which the first of the signers expires, on the broker's clock; None while none does.
        version: version of the account; empty where the store does not have it.
        endpoints: endpoints of the account's URLs.
    """

    connect_timeout_s: float
    answer_timeout_s: float
    headers: tuple[str, ...] = ()
    authorization: tuple[str, ...] = field(default=(), repr=False)
    signers: tuple[Webhook, ...] = ()
    tls: Tls | None = None
    until_ms: int | None = None
    version: str = ""
    endpoints: frozenset[str] = frozenset()

    @classmethod
    def default(cls, settings: Settings) -> Profile:
        """Return the profile of an account that sets nothing, or that is not known."""
        return cls(settings.connect_timeout_s, settings.answer_timeout_s)

    @classmethod
    def of(cls, account: Account, settings: Settings, now_ms: int) -> Profile:
        """Return the profile of an account, its secrets decrypted; those that have expired by now do not sign.

        Raises:
            BadSetting: a secret cannot be decrypted with the present key.
            InvalidAccount: the account's row cannot be read, a secret or a header is invalid, or all secrets have
                expired: nothing goes out unsigned by mistake.
        """
        if account.unreadable:
            raise InvalidAccount(f"{reason_words(UNREADABLE, '', f'Account {account.name}')}.")
        signing = [
            secret for secret in account.secrets if secret.expires_ms is None or secret.expires_ms > now_ms
        ]
        if account.secrets and not signing:
            raise InvalidAccount(f"Every secret of account {account.name} has expired; give it a new one.")
        tls = None
        if account.ca_bundle or account.client_cert or account.pinned_keys:
            key = decrypt(account.client_key, account.name, "client_key") if account.client_key else None
            tls = Tls(account.ca_bundle, account.client_cert, key, account.pinned_keys)
        return cls(
            account.connect_timeout_s or settings.connect_timeout_s,
            account.answer_timeout_s or settings.answer_timeout_s,
            tuple(f"{name}: {text}" for name, text in account.headers.items()),
            _authorization(account),
            tuple(_signer(account.name, decrypt(secret.value, account.name, "secret")) for secret in signing),
            tls,
            min((secret.expires_ms for secret in signing if secret.expires_ms is not None), default=None),
            account.version,
            frozenset(endpoint_of(url) for url in (account.url, account.mo_url, account.pass_url) if url),
        )

    def for_url(self, url: str) -> Profile:
        """Return the profile of a POST to a call's own URL.

        What authenticates to the account's servers goes to no other: extra headers, client certificate, authorities and
        pins go with the POST only where scheme, host and port of the URL are those of one of the account's URLs. The POST
        is signed, and has the account's limits, in any case.
        """
        return (
            self
            if endpoint_of(url) in self.endpoints
            else replace(self, headers=(), authorization=(), tls=None)
        )


def _authorization(account: Account) -> tuple[str, ...]:
    if account.authorization is None:
        return ()
    text = decrypt(account.authorization, account.name, "authorization")
    check_authorization(text)
    return (f"Authorization: {text}",)


def _signer(name: str, secret: str) -> Webhook:
    try:
        return Webhook(secret)
    except (ValueError, EmptyWebhookSecretError):
        raise InvalidAccount(f"A secret of account {name} is none: whsec_ and base64.") from None
