"""Which client a request comes from, as its peer and the headers of trusted proxies say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.transports.client_address import (
    FORWARDED_LIMIT_BYTES,
    HOPS_LIMIT,
    UNKNOWN,
    ClientAddress,
    ProxyHeader,
    TrustedProxies,
)

PROXIES = ("10.0.0.0/8", "2001:db8:1::/48", "unix")
Headers = dict[str, list[str]]


def client_of(peer: str, headers: Headers, header: ProxyHeader = "X-Forwarded-For") -> ClientAddress:
    return TrustedProxies(PROXIES, header).client_of(peer, lambda name: headers.get(name, []))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.2.3.4, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.2.3.4, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7", "10.0.0.2, 2001:db8:1::9"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7:4711"], "203.0.113.7"),
        ("10.0.0.1", ["[2001:DB8:2:0::1]:4711"], "2001:db8:2::1"),
        ("10.0.0.1", ["2001:db8:2::1"], "2001:db8:2::1"),
        ("10.0.0.1", ["::ffff:203.0.113.7"], "203.0.113.7"),
        ("::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("", [], "unix"),
    ],
)
def test_the_last_address_that_is_no_trusted_proxy_is_the_client(
    peer: str, forwarded_for: list[str], expected: str
) -> None:
    assert client_of(peer, {"X-Forwarded-For": forwarded_for}).address == expected


@pytest.mark.parametrize("peer", ["203.0.113.9", "2001:db8:2::1", "127.0.0.1", "9.255.255.255", "11.0.0.0"])
def test_the_headers_of_an_address_that_is_not_trusted_do_not_count(peer: str) -> None:
    headers = {
        "X-Forwarded-For": ["1.2.3.4"],
        "X-Forwarded-Proto": ["https"],
        "X-Forwarded-Host": ["evil.example"],
        "Forwarded": ["for=1.2.3.4"],
    }
    assert client_of(peer, headers) == ClientAddress(peer)
    assert client_of(peer, headers, "Forwarded") == ClientAddress(peer)


def test_without_trusted_proxies_no_header_counts() -> None:
    """Not even that of a peer on the same machine, or on a unix socket."""
    none = TrustedProxies()
    assert none.client_of("127.0.0.1", lambda _: ["1.2.3.4"]) == ClientAddress("127.0.0.1")
    assert none.client_of("", lambda _: ["1.2.3.4"]) == ClientAddress("unix")


@pytest.mark.parametrize("junk", ["", "unknown", "_hidden", "1.2.3", "1.2.3.4.5", "x" * 5000, "[::1", '"'])
@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
def test_a_client_that_a_proxy_does_not_name_is_unknown(junk: str, header: ProxyHeader) -> None:
    """It is not the proxy, whose address may have rights. What a proxy adds after the junk still counts."""
    prefix = "for=" if header == "Forwarded" else ""
    assert client_of("10.0.0.1", {header: [prefix + junk]}, header).address == UNKNOWN
    headers: Headers = {header: [prefix + junk, f"{prefix}203.0.113.7, {prefix}10.0.0.2"]}
    assert client_of("10.0.0.1", headers, header).address == "203.0.113.7"


def test_only_the_configured_header_is_read() -> None:
    """A proxy that writes one of them passes the other one on as the client sent it."""
    headers = {"X-Forwarded-For": ["203.0.113.7"], "Forwarded": ["for=203.0.113.8"]}
    assert client_of("10.0.0.1", headers).address == "203.0.113.7"
    assert client_of("10.0.0.1", headers, "Forwarded").address == "203.0.113.8"


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("for=203.0.113.7", ClientAddress("203.0.113.7")),
        ('For="203.0.113.7:4711" ; Proto=HTTPS', ClientAddress("203.0.113.7", "https")),
        (
            'for="[2001:db8:2::1]:4711";host="push.test:443"',
            ClientAddress("2001:db8:2::1", "", "push.test:443"),
        ),
        (
            "for=1.2.3.4;host=evil.example, for=203.0.113.7;host=a.test;proto=https, for=10.0.0.2;proto=http",
            ClientAddress("203.0.113.7", "https", "a.test"),
        ),
        ("for=1.2.3.4;host=evil.example;, for=203.0.113.7", ClientAddress("203.0.113.7")),
        ("for=1.2.3.4,, for=203.0.113.7,", ClientAddress("203.0.113.7")),
        ('for="1.2.3.4, for=5.6.7.8", for=203.0.113.7', ClientAddress("203.0.113.7")),
        (r'for="1.2.3.4\", for=5.6.7.8", for=203.0.113.7', ClientAddress("203.0.113.7")),
        ('for=203.0.113.7;host="evil.example/path"', ClientAddress("203.0.113.7")),
        ('for="1.2.3.4, for=203.0.113.7', ClientAddress(UNKNOWN)),
        ("proto=https", ClientAddress(UNKNOWN, "https")),
    ],
)
def test_forwarded_is_read_as_rfc_7239_has_it(forwarded: str, expected: ClientAddress) -> None:
    assert client_of("10.0.0.1", {"Forwarded": [forwarded]}, "Forwarded") == expected


def test_the_scheme_and_the_host_are_those_of_the_last_proxy() -> None:
    headers = {
        "X-Forwarded-For": ["203.0.113.7"],
        "X-Forwarded-Proto": ["http", "gopher, wss"],
        "X-Forwarded-Host": ["evil.example, push.test:8443"],
    }
    assert client_of("10.0.0.1", headers) == ClientAddress("203.0.113.7", "https", "push.test:8443")
    headers |= {"X-Forwarded-Proto": ["javascript"], "X-Forwarded-Host": ["a b"]}
    assert client_of("10.0.0.1", headers) == ClientAddress("203.0.113.7")


def test_so_many_addresses_are_read() -> None:
    proxies = [f"10.0.0.{number}" for number in range(1, HOPS_LIMIT)]
    headers = {"X-Forwarded-For": [", ".join(["203.0.113.7", *proxies])]}
    assert client_of("10.9.9.9", headers).address == "203.0.113.7"
    headers = {"X-Forwarded-For": [", ".join(["203.0.113.7", "10.1.1.1", *proxies])]}
    assert client_of("10.9.9.9", headers).address == "10.1.1.1"
    elements = "for=203.0.113.7;x=".ljust(FORWARDED_LIMIT_BYTES, "x")
    assert client_of("10.0.0.1", {"Forwarded": [elements]}, "Forwarded").address == "203.0.113.7"
    assert client_of("10.0.0.1", {"Forwarded": [elements + "x"]}, "Forwarded").address == UNKNOWN


@given(
    peer=st.sampled_from(["10.0.0.1", "203.0.113.9", "", "fe80::1%eth0"]) | st.text(max_size=20),
    values=st.lists(st.text(alphabet='for=;,." []:1aé\\\t', max_size=40) | st.text(max_size=20), max_size=4),
    header=st.sampled_from(["X-Forwarded-For", "Forwarded"]),
)
def test_no_header_raises(peer: str, values: list[str], header: ProxyHeader) -> None:
    """And a trusted proxy's last word counts, after anything that a client sent."""
    client_of(peer, dict.fromkeys(("X-Forwarded-For", "Forwarded", "X-Forwarded-Host"), values), header)
    own = "for=203.0.113.7" if header == "Forwarded" else "203.0.113.7"
    assert client_of("10.0.0.1", {header: [*values, own]}, header).address == "203.0.113.7"


def test_a_name_that_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8 has host bits set"):
        TrustedProxies(["10.0.0.1/8"])
