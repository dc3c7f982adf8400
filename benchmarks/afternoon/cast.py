"""Cast of the afternoon: accounts with their receivers, and the events that they get."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate, product
from typing import Final

ACCOUNTS: Final = 200
_FIRST: Final = (
    "amber", "bayside", "birchwood", "blue-heron", "brookline", "canyon", "cedar", "clearwater", "cobalt", "copperline", "crestview",
    "driftwood", "eastgate", "evergreen", "fairfield", "foxglove", "granite", "greenway", "harborview", "highland", "ironwood",
    "juniper", "kestrel", "lakeside", "larkspur", "lighthouse", "magnolia", "maple", "marigold", "meadow", "northstar", "oakridge",
    "old-mill", "pinecrest", "prairie", "redwood", "riverside", "saltmarsh", "silverline", "summit", "tidewater", "westbrook",
)  # fmt: skip
_LAST: Final = (
    "auto", "bakery", "bank", "books", "cinemas", "clinics", "coffee", "dental", "eyecare", "fitness", "foods", "freight", "garden",
    "hotels", "insurance", "lending", "market", "motors", "outfitters", "pets", "pharmacy", "pizza", "realty", "salons", "schools",
    "storage", "tickets", "travel", "utilities", "yoga",
)  # fmt: skip
#: Platforms of others, at which a quarter of the accounts have their receivers.
_PLATFORMS: Final = ("inbound.ringbell-crm.example", "hooks.texthub.example", "in.loyaltycloud.example")
#: Area codes of the numbers.
_AREAS: Final = (
    "202",
    "206",
    "212",
    "213",
    "303",
    "305",
    "312",
    "404",
    "415",
    "503",
    "512",
    "602",
    "617",
    "702",
    "713",
    "773",
)
_ANSWERS: Final = (
    "Yes", "YES please", "C", "Confirm", "Can I move it to Thursday?", "What time do you open on Sunday?", "Thanks!", "HELP",
    "Is it ready for pickup?", "On my way", "running 10 min late, sorry", "2 large, extra cheese", "Who is this?", "INFO", "JOIN",
    "Call me after six please", "No, thank you", "👍", "Où êtes-vous ?", "WIN", "My order number is 4471", "still waiting…",
)  # fmt: skip
_STOPS: Final = ("STOP", "Stop", "UNSUBSCRIBE", "stop texting me", "END", "CANCEL")
_CAMPAIGNS: Final = (
    "Winter sale", "Loyalty club", "Appointment reminders", "Weekend specials", "Fraud alerts", "Back to school", "New menu",
)  # fmt: skip
#: Kinds of events and their share.
_KINDS: Final = {
    "mt": 860, "mo": 90, "subscribed": 14, "unsubscribed": 6, "email": 4, "pass": 12, "mms": 14,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Account:
    """Account of the platform.

    Attributes:
        name: its name.
        host: of its receiver.
        path: of its URL.
        short_code: from which its messages come.
        wait_ms: that its receiver takes to answer, as a rule.
    """

    name: str
    host: str
    path: str
    short_code: str
    wait_ms: int

    def url(self, port: int) -> str:
        """Return its Postback URL."""
        return f"https://{self.host}{'' if port == 443 else f':{port}'}{self.path}"


def accounts(seed: int) -> list[Account]:
    """Return the accounts, the largest first."""
    choice = random.Random(seed)
    known = [f"{first}-{last}" for first, last in product(_FIRST, _LAST)]
    names = list(dict.fromkeys([*ROLES.values(), *choice.sample(known, ACCOUNTS)]))[:ACCOUNTS]
    stars, others = names[: len(ROLES)], names[len(ROLES) :]
    names = [*others[:1], ROLES["resending"], *others[1:2], ROLES["recovered"], *others[2:]]
    for place, name in enumerate(name for name in stars if name not in names):
        names.insert(6 + 3 * place, name)
    cast = []
    for number, name in enumerate(names):
        host, path = choice.choice((f"hooks.{name}.example", f"api.{name}.example")), "/postbacks"
        if number % 4 == 3 and name not in stars:
            host, path = choice.choice(_PLATFORMS), f"/t/{name}"
        wait_ms = int(choice.lognormvariate(4.2, 0.5))
        cast.append(Account(name, host, path, str(55_500 + number), wait_ms))
    return cast


#: Part in the play -> name of the account that plays it.
ROLES: Final = {
    "unavailable": "blue-heron-dental",
    "expired": "copperline-bank",
    "no connection": "northstar-fitness",
    "no name": "old-mill-bakery",
    "hostile": "marigold-salons",
    "slow": "summit-outfitters",
    "paused": "riverside-clinics",
    "full": "tidewater-utilities",
    "recovered": "harborview-hotels",
    "resending": "lakeside-lending",
    "resent": "evergreen-pharmacy",
    "no url": "foxglove-books",
}


class Events:
    """Events of the platform's subscribers, each with the account that gets it.

    Args:
        cast: the accounts.
        seed: of what is chosen.
    """

    def __init__(self, cast: list[Account], seed: int) -> None:
        self._cast = cast
        self.random = random.Random(seed)
        self._sizes = list(accumulate(1 / (rank + 2) ** 0.9 for rank in range(len(cast))))
        self._shares = list(accumulate(_KINDS.values()))
        self._number = 0

    def account(self) -> Account:
        """Choose an account by its size."""
        return self.random.choices(self._cast, cum_weights=self._sizes)[0]

    def number(self) -> str:
        """Choose a number that nobody has."""
        return f"1{self.random.choice(_AREAS)}55501{self.random.randrange(100):02d}"

    def of(self, account: Account, at_ms: int, kind: str = "") -> Iterator[tuple[int, dict[str, str]]]:
        """Yield the events of one message or change, each with the time at which it comes."""
        choice = self.random
        kind = kind or choice.choices(tuple(_KINDS), cum_weights=self._shares)[0]
        self._number += 1
        person = self.number()
        tracking = f"TX{self._number:07d}{choice.randrange(16**5):05X}"
        if kind in {"mt", "mms"}:
            yield from self._message(account, at_ms, person, tracking, is_mms=kind == "mms")
        elif kind in {"mo", "stop"}:
            is_stop = kind == "stop" or choice.random() < 0.025
            yield at_ms, {
                "ORIGIN": "SMS_MO", "CODE": "N211", "FROM": person, "TO": account.short_code,
                "TEXT": choice.choice(_STOPS if is_stop else _ANSWERS), "RECEIVED": _stamp(at_ms - 900),
                "TRANSACTIONID": f"{choice.randrange(10**7):07d}",
            }  # fmt: skip
        elif kind in {"subscribed", "unsubscribed"}:
            yield at_ms, {
                "ORIGIN": "SUB", "CODE": "N301" if kind == "subscribed" else "N302", "MOBILE": person,
                "CAMPAIGNID": f"{choice.randrange(10_000, 20_000)}", "SUBID": f"S-{tracking}", "TIMESTAMP": _stamp(at_ms),
                "SHORTCODE": account.short_code, "CAMPAIGNTITLE": choice.choice(_CAMPAIGNS), "SOURCE": "MO",
            }  # fmt: skip
        elif kind == "email":
            yield at_ms, {
                "ORIGIN": "EMAIL_SUB", "CODE": "N303", "EMAIL": f"reader{choice.randrange(10_000)}@mail.example",
                "CAMPAIGNID": f"{choice.randrange(10_000, 20_000)}",
            }  # fmt: skip
        else:
            yield at_ms, {
                "ORIGIN": "GENERATE_PASS", "CODE": "N801", "STATUSCODE": "N801", "REFERENCEDBY": "MOBILE",
                "REFERENCEVALUE": person, "PASSDATAID": f"{choice.randrange(10**6)}", "SERIALNUMBER": f"P-{tracking}",
                "TIMESTAMP": _stamp(at_ms),
            }  # fmt: skip

    def _message(
        self, account: Account, at_ms: int, person: str, tracking: str, *, is_mms: bool
    ) -> Iterator[tuple[int, dict[str, str]]]:
        choice = self.random
        common = {"FROM": account.short_code, "TO": person, "TRACKINGID": tracking, "SPID": "0032"}
        if is_mms:
            common |= {"SENTAS": "MMS", "MMSID": f"{choice.randrange(10_000, 99_999)}"}
        origin, sent, ended = ("MMS_MT", "N101", "N102") if is_mms else ("SMS_MT", "N201", "N202")
        yield at_ms, {
            "ORIGIN": origin, "CODE": sent, "STATUS": "Message Sent", "TIMESTAMP": _stamp(at_ms),
        } | common  # fmt: skip
        later_ms = at_ms + int(choice.lognormvariate(8.3, 0.6))
        if not is_mms and choice.random() < 0.02:
            yield later_ms, {
                "ORIGIN": origin, "CODE": "E202", "STATUS": "Message Sent/Failed", "TIMESTAMP": _stamp(later_ms),
                "STATUSDETAILS": choice.choice(("Handset is switched off", "Number is not in service", "Carrier timeout")),
            } | common  # fmt: skip
        else:
            yield later_ms, {
                "ORIGIN": origin, "CODE": ended, "STATUS": "Message Sent/Delivered", "TIMESTAMP": _stamp(later_ms),
            } | common  # fmt: skip


def _stamp(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
