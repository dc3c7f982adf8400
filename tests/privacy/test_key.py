"""The key of the suffixes: made once, kept in the broker, or set."""

from __future__ import annotations

import pytest
from helpers import environment

from postbacks import keys
from postbacks.broker.client import client_for
from postbacks.errors import BadSetting
from postbacks.privacy import masker
from postbacks.settings import load

NUMBER = "15552310137"


def test_the_key_is_made_at_its_first_use_and_stays(rig):
    """Two programs mask alike; whoever loses the broker, and with it the key, gets other suffixes."""
    first = masker().number(NUMBER)
    assert first == masker(rig.client, load()).number(NUMBER)
    assert len(rig.client.get(keys.PRIVACY_KEY)) == 64
    assert rig.client.ttl(keys.PRIVACY_KEY) == -1
    rig.client.delete(keys.PRIVACY_KEY)
    assert masker().number(NUMBER) != first


def test_a_key_that_is_set_needs_no_broker(rig):
    """Suffixes then outlive the broker."""
    away = client_for("redis://127.0.0.1:1/0", 1.0)
    with environment(POSTBACKS_PRIVACY_KEY="a key of sixteen"):
        assert masker(away).number(NUMBER) == masker().number(NUMBER)
    assert rig.client.get(keys.PRIVACY_KEY) is None


def test_without_a_broker_masks_have_no_suffix():
    """A list of the history is shown all the same."""
    mask = masker(client_for("redis://127.0.0.1:1/0", 1.0))
    assert mask.number(NUMBER) == "1555…37"
    assert "does not answer" in mask.trouble


def test_a_key_that_could_be_guessed_is_refused_and_not_quoted():
    """The sentence names the setting alone."""
    with (
        environment(POSTBACKS_PRIVACY_KEY="hunter2"),
        pytest.raises(BadSetting, match="POSTBACKS_PRIVACY_KEY") as refused,
    ):
        load()
    assert "hunter2" not in str(refused.value)
    assert "16" in str(refused.value)
