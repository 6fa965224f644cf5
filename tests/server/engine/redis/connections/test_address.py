"""Addresses: parsing URLs, and the errors of malformed ones."""

import pytest

from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.connections.connector import Connector


@pytest.mark.parametrize(
    ("url", "name", "options"),
    [
        ("redis://localhost", "localhost:6379", {"db": 0}),
        ("redis://10.0.0.1:7000/2", "10.0.0.1:7000", {"db": 2}),
        ("redis://[::1]:7000/", "::1:7000", {"db": 0}),
        ("redis://:s%40crt@h", "h:6379", {"db": 0, "password": "s@crt"}),
        ("redis://me:s%3Acrt@h", "h:6379", {"db": 0, "username": "me", "password": "s:crt"}),
        ("rediss://h?ssl_ca_certs=ca.pem", "h:6379", {"db": 0, "ssl_ca_certs": "ca.pem"}),
        (
            "rediss://h?ssl_cert_reqs=none&ssl_check_hostname=false",
            "h:6379",
            {"db": 0, "ssl_cert_reqs": "none", "ssl_check_hostname": False},
        ),
        ("unix://:s%40crt@/run/r%20s?db=3", "/run/r s", {"db": 3, "password": "s@crt"}),
        ("rediss+sentinel://h/main", "main of h:26379", {"db": 0, "ssl": True}),
        ("redis+sentinel://h/main", "main of h:26379", {"db": 0}),
        ("redis+sentinel://:p@h:1,i/main/3", "main of h:1,i:26379", {"db": 3, "password": "p"}),
        ("redis+cluster://:p@h:1,i", "h:1,i:6379", {"db": 0, "password": "p"}),
        ("rediss+cluster://h/?ssl_ca_certs=ca.pem", "h:6379", {"db": 0, "ssl_ca_certs": "ca.pem"}),
    ],
)
def test_an_address_says_where_and_how(url: str, name: str, options: dict[str, object]) -> None:
    """Its name, which is logged, without the password."""
    address = parse_address(url)
    assert (address.name, address.options) == (name, options)
    assert "crt" not in repr(address)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://", "with the host after"),
        ("redis://:secret@", "with the host after"),
        ("redis://a,b", "with the host after"),
        ("redis://h:secret", "port"),
        ("redis://h:99999", "port"),
        ("redis://h/secret", "number of a database"),
        ("redis://h/0/1", "number of a database"),
        ("redis://h?ssl_ca_certs=secret", "unknown option ssl_ca_certs"),
        ("rediss://h?decode_responses=secret", "unknown option decode_responses"),
        ("redis+sentinel://h", "names the service"),
        ("redis+sentinel://h/main/secret", "number of a database"),
        ("redis+cluster://", "with the host after"),
        ("redis+cluster://h:secret,i", "port"),
        ("redis+cluster://h/0", "no databases"),
        ("redis+cluster://h?ssl_ca_certs=secret", "unknown option ssl_ca_certs"),
    ],
)
def test_a_mistake_is_said_without_the_url(url: str, why: str) -> None:
    """A sentence that names the key; the rest of the URL may hold a password."""
    with pytest.raises(ValueError, match=why) as caught:
        parse_address(url)
    assert "secret" not in str(caught.value)
    assert str(caught.value).startswith("engine.url")
    assert str(caught.value).endswith(".")


async def test_sentinels_have_their_own_password() -> None:
    """The master has another one."""
    address = parse_address("redis+sentinel://:one@h/main?sentinel_password=two")
    assert address.options["password"] == "one"
    assert address.sentinel_options == {"password": "two"}
    connector = Connector(address, "test")
    await connector.close()
    await connector.close()
