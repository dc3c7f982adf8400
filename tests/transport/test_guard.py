"""The guard's reading of addresses that stand for others, and the table against Python's own."""

from __future__ import annotations

import ipaddress

import pytest

from postbacks.accounts.url_policy import _parse
from postbacks.errors import BadSetting
from postbacks.guard import _SPECIAL, refusal
from postbacks.settings import Settings

#: A prefix of each length, and 10.0.0.1 and 8.8.8.8 behind it: RFC 6052 2.4 with other addresses.
PREFIXES = {
    "2001:470::/32": ("2001:470:a00:1::", "2001:470:808:808::"),
    "2001:470:100::/40": ("2001:470:10a:0:1::", "2001:470:108:808:8::"),
    "2001:470:122::/48": ("2001:470:122:a00:0:100::", "2001:470:122:808:8:800::"),
    "2001:470:122:300::/56": ("2001:470:122:30a:0:1::", "2001:470:122:308:8:808::"),
    "2001:470:122:344::/64": ("2001:470:122:344:a:0:100:0", "2001:470:122:344:8:808:800:0"),
    "2001:470:122:344::/96": ("2001:470:122:344::a00:1", "2001:470:122:344::808:808"),
}


def settings(**values: str) -> Settings:
    """Settings as their variables would make them."""
    return Settings(**{"allowed_networks": ""} | values)


@pytest.mark.parametrize(("prefix", "addresses"), PREFIXES.items(), ids=PREFIXES)
def test_behind_a_nat64_prefix_the_ipv4_address_is_judged(prefix, addresses):
    """Once the prefix is set, and only then; what it leads to may be opened or denied by its IPv4 address."""
    inside, outside = addresses
    assert refusal(inside, 443, settings()) is None
    ours = settings(nat64_prefixes=f"2001:470:ffff::/48, {prefix}")
    assert refusal(inside, 443, ours) == f"{inside} stands for 10.0.0.1: private (10.0.0.0/8)"
    assert refusal(outside, 443, ours) is None
    assert refusal(inside, 443, settings(nat64_prefixes=prefix, allowed_networks="10.0.0.0/8")) is None
    assert "denied by POSTBACKS_DENIED_NETWORKS (8.8.8.8/32)" in refusal(
        outside, 443, settings(nat64_prefixes=prefix, denied_networks="8.8.8.8/32")
    )


@pytest.mark.parametrize("prefix", ["64:ff9b:1::/48", "fd00:64::/96"])
def test_a_local_prefix_that_is_set_leads_out(prefix):
    """The well-known local one and a unique local one are refused by themselves, and are a way to IPv4 once they are set."""
    base = ipaddress.ip_network(prefix)
    shift = {48: lambda four: (four >> 16) << 64 | (four & 0xFFFF) << 40, 96: lambda four: four}[
        base.prefixlen
    ]
    behind = {
        four: str(base.network_address + shift(int(ipaddress.IPv4Address(four))))
        for four in ("8.8.8.8", "10.0.0.1")
    }
    assert refusal(behind["8.8.8.8"], 443, settings())
    ours = settings(nat64_prefixes=prefix)
    assert refusal(behind["8.8.8.8"], 443, ours) is None
    assert "stands for 10.0.0.1" in refusal(behind["10.0.0.1"], 443, ours)


@pytest.mark.parametrize("prefix", ["2001:db8::/33", "10.0.0.0/8", "2001:db8::/128"])
def test_a_nat64_prefix_that_cannot_be_is_refused(prefix, monkeypatch):
    """With the lengths that there are."""
    from postbacks import settings as module

    monkeypatch.setenv("POSTBACKS_NAT64_PREFIXES", prefix)
    module.load.cache_clear()
    with pytest.raises(BadSetting, match=r"POSTBACKS_NAT64_PREFIXES=.*32, 40, 48, 56, 64 or 96 bits"):
        module.load()
    module.load.cache_clear()


def test_an_isatap_address_must_pass_as_both():
    """To open an IPv4 network opens no IPv6 network, nor the other way round; a single address is opened as it stands."""
    address = "fd00::5efe:10.0.0.1"
    shown = "fd00::5efe:a00:1 stands for 10.0.0.1"
    for allowed, words in (
        ("", f"{shown}: private (10.0.0.0/8)"),
        ("10.0.0.0/8", f"{shown}: unique local (fc00::/7)"),
        ("fd00::/8", f"{shown}: private (10.0.0.0/8)"),
        ("10.0.0.0/8,fd00::/8", None),
        ("fd00::5efe:10.0.0.1/128", None),
    ):
        assert refusal(address, 443, settings(allowed_networks=allowed)) == words


def test_what_python_holds_for_private_is_refused():
    """A second table, of the same registries: each network of it that is not global is refused here, at both its ends."""
    networks = [
        *ipaddress._IPv4Constants._private_networks,
        *ipaddress._IPv6Constants._private_networks,
    ]
    assert len(networks) > 20
    for network in networks:
        if network == ipaddress.ip_network("::ffff:0:0/96"):
            continue  # judged by what it stands for
        for address in (network[0], network[-1]):
            assert refusal(str(address), 443, settings()), address


def test_the_tables_networks_are_written_once():
    """No network stands in the table twice."""
    networks = [network for network, _ in _SPECIAL]
    assert len(networks) == len(set(networks))


def test_the_policy_of_a_worker_that_knows_no_prefixes_is_read():
    """A worker of 0.1.0 publishes none."""
    read = _parse(b'{"allowed_networks":[],"denied_networks":[],"allowed_ports":[[80,80]],"https_only":true}')
    assert read is not None
    assert (read.nat64_prefixes, read.https_only) == ((), True)
