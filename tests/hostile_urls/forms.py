"""URL forms: those that must be refused by default, those that must pass, and what names stand for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Refused(NamedTuple):
    """A URL that must not be reached with the default settings.

    Attributes:
        url: as a customer might set it.
        says: what the outcome's detail says.
        outcome: of the POST.
        early: whether it can be told without looking a name up.
        reaches: whether something would arrive if the guard were open, so that its silence is the guard's work.
    """

    url: str
    says: str
    outcome: str = "blocked"
    early: bool = True
    reaches: bool = True


#: Answers of the name server: one name's, one look-up after the other; the last one stays.
ZONE: dict[str, list[Any]] = {
    "global.example": [["8.8.8.8"]],
    "global6.example": [["2606:4700::1111"]],
    "both.example": [["8.8.8.8", "2606:4700::1111"]],
    "xn--mller-kva.example": [["8.8.4.4"]],
    "loopback.example": [["127.0.0.1"]],
    "loopback6.example": [["::1"]],
    "private.example": [["10.1.2.3"]],
    "metadata.example": [["169.254.169.254"]],
    "metadata.google.internal": [["169.254.169.254"]],
    "mapped.example": [["::ffff:10.0.0.1"]],
    "local.example": [["fd00:ec2::254"]],
    "inside.example": [["10.0.0.1", "192.168.0.1", "fd00::1"]],
    "127.0.0.1.nip.example": [["127.0.0.1"]],
}

REFUSED = [
    # IPv4 as it is usually written, a network each
    Refused("http://127.0.0.1/", "loopback"),
    Refused("http://127.255.255.254/", "loopback"),
    Refused("http://0.0.0.0/", "this network"),
    Refused("http://0.1.2.3/", "this network"),
    Refused("http://10.0.0.1/", "private"),
    Refused("http://172.16.0.1/", "private"),
    Refused("http://172.31.255.255/", "private"),
    Refused("http://192.168.1.1/", "private"),
    Refused("http://169.254.169.254/latest/meta-data/", "metadata"),
    Refused("http://169.254.170.2/v2/credentials", "metadata"),
    Refused("http://100.64.0.1/", "carrier-grade NAT"),
    Refused("http://100.100.100.200/latest/meta-data/", "carrier-grade NAT"),
    Refused("http://192.0.0.192/opc/v2/", "protocol assignments"),
    Refused("http://192.0.2.1/", "documentation"),
    Refused("http://198.51.100.1/", "documentation"),
    Refused("http://203.0.113.1/", "documentation"),
    Refused("http://198.18.0.1/", "benchmarking"),
    Refused("http://192.88.99.1/", "6to4 relay"),
    Refused("http://224.0.0.1/", "multicast", reaches=False),
    Refused("http://239.255.255.250/", "multicast", reaches=False),
    Refused("http://240.0.0.1/", "reserved"),
    Refused("http://255.255.255.255/", "reserved", reaches=False),
    # addresses that only look public: of the nearest network, and of clouds' platforms
    Refused("http://192.31.196.1/", "AS112"),
    Refused("http://192.52.193.1/", "AMT"),
    Refused("http://192.175.48.1/", "AS112"),
    Refused("http://168.63.129.16/machine?comp=goalstate", "Azure's host agent"),
    Refused("http://0xa83f8110/", "Azure's host agent"),
    Refused("http://199.36.153.4/", "Google Cloud's private endpoints"),
    Refused("http://199.36.153.11/", "Google Cloud's private endpoints"),
    Refused("http://161.26.0.10/", "IBM Cloud's private endpoints"),
    Refused("http://166.11.255.255/", "IBM Cloud's private endpoints"),
    # IPv4 in other spellings
    Refused("http://127.1/", "loopback"),
    Refused("http://127.0.1/", "loopback"),
    Refused("http://0/", "this network"),
    Refused("http://2130706433/", "loopback"),
    Refused("http://0x7f000001/", "loopback"),
    Refused("http://0X7F.0x0.0x0.0x1/", "loopback"),
    Refused("http://0177.0.0.1/", "loopback"),
    Refused("http://00000177.0.0.01/", "loopback"),
    Refused("http://017700000001/", "loopback"),
    Refused("http://0x7f.1/", "loopback"),
    Refused("http://0xa9fea9fe/", "metadata"),
    Refused("http://2852039166/", "metadata"),
    Refused("http://0251.0376.0251.0376/", "metadata"),
    Refused("http://169.16689662/", "metadata"),
    Refused("http://0xA.1/", "private"),
    # the root's dot
    Refused("http://127.0.0.1./", "loopback"),
    Refused("http://localhost./", "loopback"),
    # names of this machine
    Refused("http://localhost/", "loopback"),
    Refused("http://LocalHost:8080/", "loopback"),
    Refused("http://anything.localhost/", "loopback"),
    # Unicode that becomes an address or a name of this machine
    Refused("http://１２７.０.０.１/", "", outcome="bad_url", reaches=False),  # noqa: RUF001
    Refused("http://127。0。0。1/", "", outcome="bad_url", reaches=False),
    Refused("http://127．0．0．1/", "", outcome="bad_url", reaches=False),  # noqa: RUF001
    Refused("http://127｡0｡0｡1/", "", outcome="bad_url", reaches=False),
    Refused("http://①②⑦.⓪.⓪.①/", "", outcome="bad_url", reaches=False),
    Refused("http://①⑥⑨.254.①⑥⑨.254/", "", outcome="bad_url", reaches=False),
    Refused("http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/", "", outcome="bad_url", reaches=False),
    # percent-encoding in the host
    Refused("http://127.0.0.%31/", "loopback"),
    Refused("http://%31%32%37.0.0.1/", "loopback"),
    Refused("http://%6cocalhost/", "loopback"),
    # IPv6, a network each
    Refused("http://[::1]/", "loopback"),
    Refused("http://[0:0:0:0:0:0:0:1]/", "loopback"),
    Refused("http://[::]/", "unspecified"),
    Refused("http://[fe80::1]/", "link-local", reaches=False),
    Refused("http://[fc00::1]/", "unique local"),
    Refused("http://[fd00:ec2::254]/latest/meta-data/", "unique local"),
    Refused("http://[fec0::1]/", "not global unicast"),
    Refused("http://[ff02::1]/", "multicast", reaches=False),
    Refused("http://[2001:db8::1]/", "documentation"),
    Refused("http://[3fff::1]/", "documentation"),
    Refused("http://[100::1]/", "discard"),
    Refused("http://[5f00::1]/", "segment routing"),
    Refused("http://[4000::1]/", "not global unicast"),
    Refused("http://[2001:2::1]/", "protocol assignments"),
    Refused("http://[2001:10::1]/", "protocol assignments"),
    Refused("http://[100:0:0:1::1]/", "dummy"),
    Refused("http://[2620:4f:8000::1]/", "AS112"),
    Refused("http://[fd20:ce::254]/computeMetadata/v1/", "unique local"),
    Refused("http://[fd00:c1::a9fe:a9fe]/opc/v2/", "unique local"),
    Refused("http://[2600:2d00:2:1000::]/", "Google Cloud's private endpoints"),
    Refused("http://[2600:2d00:2:20ff::1]/", "Google Cloud's private endpoints"),
    # IPv4 inside IPv6
    Refused("http://[::ffff:127.0.0.1]/", "loopback"),
    Refused("http://[::ffff:7f00:1]/", "loopback"),
    Refused("http://[0:0:0:0:0:ffff:a9fe:a9fe]/", "metadata"),
    Refused("http://[::ffff:10.0.0.1]/", "private"),
    Refused("http://[::127.0.0.1]/", "loopback"),
    Refused("http://[::10.0.0.1]/", "private"),
    Refused("http://[::8.8.8.8]/", "IPv4-compatible"),
    Refused("http://[::ffff:0:127.0.0.1]/", "not global unicast"),
    Refused("http://[2002:7f00:1::]/", "loopback"),
    Refused("http://[2002:a9fe:a9fe::1]/", "metadata"),
    Refused("http://[64:ff9b::127.0.0.1]/", "loopback"),
    Refused("http://[64:ff9b::a9fe:a9fe]/", "metadata"),
    Refused("http://[64:ff9b:1::10.0.0.1]/", "local NAT64"),
    Refused("http://[::ffff:168.63.129.16]/", "Azure's host agent"),
    Refused("http://[64:ff9b::168.63.129.16]/", "Azure's host agent"),
    Refused("http://[2606:4700::5efe:10.0.0.1]/", "stands for 10.0.0.1: private"),
    Refused("http://[2606:4700::200:5efe:169.254.169.254]/", "metadata"),
    Refused("http://[fe80::5efe:8.8.8.8]/", "link-local", reaches=False),
    Refused("http://[fd00::200:5efe:8.8.8.8]/", "unique local"),
    Refused("http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/", "Teredo"),
    # zone ids
    Refused("http://[fe80::1%25lo]/", "link-local"),
    Refused("http://[fe80::1%25]/", "", outcome="bad_url", reaches=False),
    Refused("http://[fe80::1%lo]/", "link-local"),
    Refused("http://[::1%25lo]/", "loopback"),
    # user and password that look like a host
    Refused("http://global.example@127.0.0.1/", "loopback"),
    Refused("http://global.example:80@127.0.0.1:80/", "loopback"),
    Refused("http://global.example%2f@127.0.0.1/", "loopback"),
    Refused("http://a@b@127.0.0.1/", "loopback"),
    # names, told only when they have been looked up
    Refused("http://loopback.example/", "127.0.0.1: loopback", early=False),
    Refused("http://loopback6.example/", "::1: loopback", early=False),
    Refused("http://LOOPBACK.example./", "127.0.0.1: loopback", early=False),
    Refused("http://private.example/", "10.1.2.3: private", early=False),
    Refused("http://metadata.example/", "169.254.169.254", early=False),
    Refused("http://metadata.google.internal/computeMetadata/v1/", "169.254.169.254", early=False),
    Refused("http://mapped.example/", "stands for 10.0.0.1", early=False),
    Refused("http://local.example/", "unique local", early=False),
    Refused("http://inside.example/", "not allowed", early=False),
    Refused("http://127.0.0.1.nip.example/", "127.0.0.1: loopback", early=False),
    # ports
    Refused("http://8.8.8.8:22/", "port 22 is not among"),
    Refused("http://8.8.8.8:25/", "port 25 is not among"),
    Refused("https://global.example:1023/", "port 1023 is not among"),
    Refused("http://[2606:4700::1111]:25/", "port 25 is not among"),
    Refused("http://8.8.8.8:0/", "", outcome="bad_url", reaches=False),
    Refused("http://8.8.8.8:65536/", "", outcome="bad_url", reaches=False),
    Refused("http://8.8.8.8:99999999999/", "", outcome="bad_url", reaches=False),
    Refused("http://8.8.8.8:-80/", "", outcome="bad_url", reaches=False),
    Refused("http://8.8.8.8:８０/", "", outcome="bad_url", reaches=False),  # noqa: RUF001
    # other schemes
    Refused("file:///etc/passwd", "", outcome="bad_url", reaches=False),
    Refused("gopher://127.0.0.1:80/_POST%20/", "", outcome="bad_url", reaches=False),
    Refused("ftp://127.0.0.1:80/", "", outcome="bad_url", reaches=False),
    Refused("dict://127.0.0.1:80/info", "", outcome="bad_url", reaches=False),
    Refused("ldap://127.0.0.1:80/", "", outcome="bad_url", reaches=False),
    Refused("telnet://127.0.0.1:80/", "", outcome="bad_url", reaches=False),
    Refused("ws://127.0.0.1:80/", "", outcome="bad_url", reaches=False),
    Refused("smtp://127.0.0.1:25/", "", outcome="bad_url", reaches=False),
    Refused("javascript:alert(1)", "", outcome="bad_url", reaches=False),
    Refused("httpx://127.0.0.1/", "", outcome="bad_url", reaches=False),
    Refused("//127.0.0.1/", "", outcome="bad_url", reaches=False),
    Refused("127.0.0.1", "", outcome="bad_url", reaches=False),
    Refused("", "", outcome="bad_url", reaches=False),
    # white space, control characters, backslashes
    Refused("http://127.0.0.1\\@global.example/", "backslash", outcome="bad_url", reaches=False),
    Refused("http:\\\\127.0.0.1/", "", outcome="bad_url", reaches=False),
    Refused("http:/\\127.0.0.1/", "", outcome="bad_url", reaches=False),
    Refused(" http://127.0.0.1/", "control character", outcome="bad_url", reaches=False),
    Refused("http://127.0.0.1\t/", "control character", outcome="bad_url", reaches=False),
    Refused("http://127.0.0.1\r\n/", "control character", outcome="bad_url", reaches=False),
    Refused("http://127.0.0.1\x00.global.example/", "", outcome="bad_url", reaches=False),
    Refused(
        "http://127.0.0.1/\r\nX-Injected: yes\r\n", "control character", outcome="bad_url", reaches=False
    ),
    Refused("http://127.0.0.1%0d%0aX-Injected:yes/", "", outcome="bad_url", reaches=False),
    # names that no resolver can look up
    Refused(f"http://{'a' * 64}.example/", "64 characters", outcome="bad_url", reaches=False),
    Refused(f"http://{'a.' * 200}example/", "407 characters", outcome="bad_url", reaches=False),
    Refused(f"http://127.0.0.1/{'a' * 2100}", "2117 characters", outcome="bad_url", reaches=False),
]


class Passing(NamedTuple):
    """A URL that the guard lets through.

    Attributes:
        url: as a customer might set it.
        address: where it arrives.
        port: where it arrives.
        target: of the request line that arrives.
        host: the Host header that arrives.
        settings: other than the defaults.
    """

    url: str
    address: str
    port: int = 80
    target: str = "/"
    host: str = ""
    settings: Mapping[str, str] = MappingProxyType({})


PASSING = [
    Passing("http://8.8.8.8", "8.8.8.8"),
    Passing("http://8.8.8.8/", "8.8.8.8"),
    Passing("http://8.8.8.8:80/", "8.8.8.8"),
    Passing("http://8.8.8.8:443/", "8.8.8.8", 443),
    Passing("http://8.8.8.8:1024/", "8.8.8.8", 1024),
    Passing("http://8.8.8.8:8080/in", "8.8.8.8", 8080, "/in"),
    Passing("http://8.8.8.8:65535/", "8.8.8.8", 65535),
    Passing("http://0x08080808/", "8.8.8.8"),
    Passing("http://172.15.255.255/", "172.15.255.255"),
    Passing("http://172.32.0.1/", "172.32.0.1"),
    Passing("http://100.63.255.255/", "100.63.255.255"),
    Passing("http://100.128.0.1/", "100.128.0.1"),
    Passing("http://169.253.255.255/", "169.253.255.255"),
    Passing("http://198.17.255.255/", "198.17.255.255"),
    Passing("http://192.0.1.1/", "192.0.1.1"),
    Passing("http://223.255.255.254/", "223.255.255.254"),
    Passing("http://168.63.129.15/", "168.63.129.15"),
    Passing("http://199.36.153.12/", "199.36.153.12"),
    Passing("http://166.12.0.1/", "166.12.0.1"),
    Passing("http://168.63.129.16/", "168.63.129.16", settings={"allowed_networks": "168.63.129.16/32"}),
    Passing("http://[2606:4700::5efe:8.8.8.8]/", "2606:4700::5efe:808:808"),
    Passing("http://[2606:4700::1111]/", "2606:4700::1111", host="[2606:4700::1111]"),
    Passing("http://[2606:4700:0:0::1111]:8080/in", "2606:4700::1111", 8080, "/in"),
    Passing("http://[::ffff:8.8.8.8]/", "8.8.8.8"),
    Passing("http://[64:ff9b::8.8.8.8]/", "64:ff9b::808:808"),
    Passing("http://[2002:808:808::1]/", "2002:808:808::1"),
    Passing("http://global.example/", "8.8.8.8", host="global.example"),
    Passing("http://GLOBAL.Example/", "8.8.8.8", host="global.example"),
    Passing("HTTP://global.example:8080/In?a=b&c=%20d", "8.8.8.8", 8080, "/In?a=b&c=%20d"),
    Passing("http://global.example./", "8.8.8.8", host="global.example"),
    Passing("http://global6.example/", "2606:4700::1111", host="global6.example"),
    Passing("http://user:p%40ss@global.example/", "8.8.8.8", host="global.example"),
    Passing("http://127.0.0.1@global.example/", "8.8.8.8", host="global.example"),
    Passing("http://127.0.0.1:80@global.example:8080/", "8.8.8.8", 8080, host="global.example:8080"),
    Passing("http://global.example#@127.0.0.1:22/", "8.8.8.8", host="global.example"),
    Passing(
        "http://global.example/?url=http://127.0.0.1:22/", "8.8.8.8", target="/?url=http://127.0.0.1:22/"
    ),
    Passing("http://global.example/@127.0.0.1/", "8.8.8.8", target="/@127.0.0.1/"),
    Passing("http://global.example/%2e%2e/%0d%0aX-Injected:yes", "8.8.8.8", target="/%0D%0AX-Injected:yes"),
    Passing("http://global.example/straße", "8.8.8.8", target="/stra%C3%9Fe"),
    Passing("http://müller.example/", "8.8.4.4", host="xn--mller-kva.example"),
    Passing("http://MÜLLER.example/", "8.8.4.4", host="xn--mller-kva.example"),
    Passing("http://xn--mller-kva.example/", "8.8.4.4", host="xn--mller-kva.example"),
    Passing("http://127.0.0.1/", "127.0.0.1", settings={"allowed_networks": "127.0.0.0/8"}),
    Passing("http://[::1]/", "::1", settings={"allowed_networks": "::1/128"}),
    Passing("http://[::ffff:127.0.0.1]/", "127.0.0.1", settings={"allowed_networks": "127.0.0.0/8"}),
    Passing("http://localhost:8080/", "127.0.0.1", 8080, settings={"allowed_networks": "127.0.0.0/8"}),
    Passing("http://private.example/", "10.1.2.3", settings={"allowed_networks": "10.1.2.0/24"}),
    Passing("http://metadata.example/", "169.254.169.254", settings={"allowed_networks": "0.0.0.0/0"}),
    Passing("http://8.8.8.8:25/", "8.8.8.8", 25, settings={"allowed_ports": "25"}),
]
