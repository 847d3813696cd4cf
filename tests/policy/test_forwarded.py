"""Whose address a request comes from: both headers, what is malformed in them, and who may write them."""

from __future__ import annotations

import ipaddress
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncecast.errors import ConfigurationError
from oncecast.policy.forwarded import (
    CLIENTS,
    MOST_HOPS,
    READ_CHARS,
    ForwardedHeader,
    TrustedProxies,
    network_of,
    parse_network,
)

PROXIES = ("10.0.0.0/8", "2001:db8:ffff::/48")
PROXY = "10.0.0.1"


def client(value: str, header: ForwardedHeader = "x-forwarded-for", peer: str = PROXY) -> str:
    """Return whose request it is."""
    return TrustedProxies(PROXIES, header).client(peer, {header: value})


@pytest.mark.parametrize(
    "value, expected",
    [
        ("192.0.2.1", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
        ("6.6.6.6,192.0.2.1,10.0.0.7", "192.0.2.1"),
        ("192.0.2.1\t, 10.0.0.7 ", "192.0.2.1"),
        ("10.0.0.9, 10.0.0.8", "10.0.0.9"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("[2001:DB8:0::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:10.0.0.5, 10.0.0.2", "10.0.0.5"),
        ("192.0.2.1, unknown", PROXY),
        ("192.0.2.1, _hidden, 10.0.0.7", "10.0.0.7"),
        ("192.0.2.1, , 10.0.0.7", "10.0.0.7"),
        ("", PROXY),
        (",", PROXY),
        ("192.0.2.1,", PROXY),
        ("192.0.2.256", PROXY),
        ("192.0.2.01", PROXY),
        ("192.0.2.1:99999999", PROXY),
        ("[2001:db8::1", PROXY),
        ("fe80::1%eth0", PROXY),
        ("192.0.2.1 192.0.2.2", PROXY),
        ('"192.0.2.1"', PROXY),
        ("localhost", PROXY),
        ("\u0661.2.3.4", PROXY),
    ],
)
def test_x_forwarded_for(value: str, expected: str) -> None:
    """The rightmost address that is no proxy's; what names none ends the search at the last that is known."""
    assert expected == client(value)


@pytest.mark.parametrize(
    "value, expected",
    [
        ("for=192.0.2.1", "192.0.2.1"),
        ("For=192.0.2.1;proto=https;by=10.0.0.1", "192.0.2.1"),
        ("proto=https; for=192.0.2.1 ; host=a.example", "192.0.2.1"),
        ("for=6.6.6.6, for=192.0.2.1, for=10.0.0.3", "192.0.2.1"),
        ('for="192.0.2.1:4711"', "192.0.2.1"),
        ('for="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
        ('for="[2001:db8:cafe::17]:_port"', "2001:db8:cafe::17"),
        ('for="[2001:db8::1]", for="10.0.0.3"', "2001:db8::1"),
        (r'for="192.0.2\.1"', "192.0.2.1"),
        ('for=192.0.2.1;host="a,b"', "192.0.2.1"),
        ('for=192.0.2.1;host="a, for=6.6.6.6"', "192.0.2.1"),
        ('for=192.0.2.1;host="a;for=6.6.6.6"', "192.0.2.1"),
        ('host="a; FOR=6.6.6.6;b";fOR=192.0.2.1', "192.0.2.1"),
        (r'for=192.0.2.1;host="a\";for=6.6.6.6"', "192.0.2.1"),
        ('host="a;for=6.6.6.6"', PROXY),
        ('x-for=6.6.6.6;for="192.0.2.1";forx=6.6.6.6', "192.0.2.1"),
        ("for=unknown", PROXY),
        ('for="_gazonk"', PROXY),
        ("for=192.0.2.1, for=_secret, for=10.0.0.3", "10.0.0.3"),
        ("for=[2001:db8::1]", PROXY),
        ("for=6.6.6.6;for=192.0.2.1", PROXY),
        ("proto=https", PROXY),
        ("192.0.2.1", PROXY),
        ("", PROXY),
        ("for=", PROXY),
        ("for = 192.0.2.1", PROXY),
        ('for="192.0.2.1', PROXY),
    ],
)
def test_forwarded(value: str, expected: str) -> None:
    """RFC 7239: pairs in any order, quoted strings, ports, obfuscated names, and what is malformed."""
    assert expected == client(value, "forwarded")


@pytest.mark.parametrize(
    "sent",
    ['for=6.6.6.6, x="', 'for="', 'for="\\', "for=6.6.6.6;", ", ,", 'for="6.6.6.6, for=10.0.0.9', "\x00", 'x=",for="'],
)
@pytest.mark.parametrize("added", ["for=192.0.2.1", 'for="192.0.2.1:80";proto=http'])
def test_what_a_client_leaves_open_swallows_nothing_that_its_proxy_adds(sent: str, added: str) -> None:
    """A quote that the client has begun would end with one of the proxy's, were the header read from its begin."""
    assert "192.0.2.1" == client(f"{sent}, {added}", "forwarded")


def test_a_header_of_a_stranger_is_not_read() -> None:
    """A forwarding header is ignored from a peer that is no proxy, and if it is not the one that the proxies write."""
    assert "192.0.2.9" == client("6.6.6.6", peer="192.0.2.9")
    assert "" == client("6.6.6.6", peer="")
    assert PROXY == TrustedProxies(PROXIES).client(PROXY, {"forwarded": "for=6.6.6.6"})
    assert PROXY == TrustedProxies(PROXIES, "forwarded").client(PROXY, {"x-forwarded-for": "6.6.6.6"})
    assert "10.0.0.1" == TrustedProxies().client("10.0.0.1", {"x-forwarded-for": "6.6.6.6"})
    assert "192.0.2.1" == client("192.0.2.1", peer="::ffff:10.0.0.1")


def test_long_headers_are_bounded() -> None:
    """Only their end is read, and no more entries than there are proxies behind each other."""
    assert "10.0.0.0" == client(", ".join(["192.0.2.1"] + [f"10.0.0.{n % 9}" for n in range(MOST_HOPS)]))
    padding = "9" * READ_CHARS
    assert "192.0.2.1" == client(f"{padding}192.0.2.1, 192.0.2.1")
    assert PROXY == client(f"{padding}, {'1' * (READ_CHARS - 10)}2.0.2.1")
    for header, value in (("forwarded", 'for="' + "," * 30_000), ("forwarded", ",x" * 15_000)):
        began = time.process_time()
        assert PROXY == client(value, header)  # type: ignore[arg-type]
        assert time.process_time() - began < 0.05


def test_what_is_remembered_is_bounded_and_of_one_proxy() -> None:
    """Clients make up headers; the same header from another peer says something else."""
    proxies = TrustedProxies(PROXIES)
    for number in range(CLIENTS + 10):
        for _ in range(2):
            assert "192.0.2.1" == proxies.client(PROXY, {"x-forwarded-for": f"{number}, 192.0.2.1"})
        assert "192.0.2.9" == proxies.client("192.0.2.9", {"x-forwarded-for": f"{number}, 192.0.2.1"})
    assert len(proxies._known) <= CLIENTS
    assert "10.0.0.2" == proxies.client("10.0.0.2", {"x-forwarded-for": "unknown"})
    assert PROXY == proxies.client(PROXY, {"x-forwarded-for": "unknown"})
    size = len(proxies._known)
    assert "192.0.2.1" == proxies.client(PROXY, {"x-forwarded-for": "x" * 300 + ", 192.0.2.1"})
    assert size == len(proxies._known)


@pytest.mark.parametrize(
    "network, expected",
    [
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("::fffe:0:0/95", "::fffe:0:0/95"),
        ("2001:db8::/32", "2001:db8::/32"),
    ],
)
def test_a_network_of_mapped_addresses_is_one_of_ipv4(network: str, expected: str) -> None:
    """A socket of both families has IPv4 peers as RFC 4291 section 2.5.5.2 maps them, and so may a list of proxies."""
    assert expected == str(parse_network(network))


def test_a_proxy_of_a_mapped_network_is_trusted() -> None:
    """However its address and its network are written."""
    for network in ("10.0.0.0/8", "::ffff:10.0.0.0/104"):
        for peer in ("10.0.0.1", "::ffff:10.0.0.1"):
            assert TrustedProxies((network,)).trusts(peer)


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1/8",
        "::ffff:10.0.0.1/104",
        "::ffff:0:0/95",
        "10.0.0.0/33",
        "proxy.example",
        "",
        "10.0.0.0-10.0.0.9",
        "1.2.3.4:80",
    ],
)
def test_what_is_no_network(text: str) -> None:
    """An error of the settings says how to write one."""
    with pytest.raises(ConfigurationError, match="is no network: write an address"):
        TrustedProxies((text,))


@pytest.mark.parametrize(
    "address, expected",
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("2001:db8:0:1::", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", ""),
        ("127.9.9.9", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
        ("", ""),
        ("somewhere", ""),
    ],
)
def test_what_limits_per_address_count(address: str, expected: str) -> None:
    """An IPv4 address, the /64 of an IPv6 one, and nothing for loopback."""
    assert expected == network_of(address)


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
OUTSIDE = ADDRESSES.filter(lambda text: not TrustedProxies(PROXIES).trusts(text))
INSIDE = st.integers(1, 2**24 - 1).map(lambda n: str(ipaddress.IPv4Address((10 << 24) + n)))


def spelled(address: str) -> str:
    """Return an address as an element of `Forwarded` has it."""
    return f'for="[{address}]:1"' if ":" in address else f"for={address}"


@given(st.text(st.characters(codec="latin-1"), max_size=30), OUTSIDE, st.lists(INSIDE, max_size=5))
def test_whatever_a_client_sends_its_address_is_found(sent: str, own: str, proxies: list[str]) -> None:
    """Behind any number of trusted proxies, whatever the client has put into the header."""
    found = ipaddress.ip_address(own)
    mapped = getattr(found, "ipv4_mapped", None)
    expected = str(mapped or found)
    assert expected == client(", ".join([sent, own, *proxies]))
    assert expected == client(", ".join([sent, *map(spelled, [own, *proxies])]), "forwarded")


@given(st.text(st.sampled_from('for=";,\\ \t[]:.1a'), max_size=MOST_HOPS - 1), OUTSIDE)
def test_what_a_proxy_quotes_is_not_read(sent: str, own: str) -> None:
    """RFC 7239 section 4: a `host` that is the client's word names nobody, wherever it stands in the element."""
    host = 'host="' + sent.replace("\\", r"\\").replace('"', r"\"") + '"'
    expected = client(own)
    assert expected == client(f"{spelled(own)};{host}", "forwarded")
    assert expected == client(f"{host};{spelled(own)}", "forwarded")


@given(st.text(st.sampled_from('for=";,\\ \t[]:_1.a'), max_size=60), st.sampled_from(["forwarded", "x-forwarded-for"]))
def test_whatever_stands_there_the_answer_is_an_address(value: str, header: ForwardedHeader) -> None:
    """Nothing is raised, and nothing else comes out."""
    ipaddress.ip_address(client(value, header))
