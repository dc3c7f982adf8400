"""An account that signs, and its receiver."""

from __future__ import annotations

import pytest
from helpers import environment, set_account
from signing import EVENT, KEY

from postbacks import send_postback
from postbacks.devtools.receiver import Receiver


@pytest.fixture(autouse=True)
def _key():
    with environment(POSTBACKS_SECRET_KEY=KEY):
        yield


@pytest.fixture
def receiver():
    with Receiver() as made:
        yield made


@pytest.fixture
def acme(rig, receiver):
    """An account of that name, whose postbacks go to the receiver; call it to deliver one."""
    set_account("acme", url=receiver.url("/acme"))

    def deliver():
        one = send_postback.delay("acme", EVENT).id
        rig.tick()
        rig.deliver()
        got = receiver.by_id().get(one)
        return got[-1] if got else None

    return deliver
