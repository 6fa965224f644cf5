"""The URL of an engine: valid forms, and errors that show nothing secret."""

from urllib.parse import quote

import pytest
from pydantic import ValidationError

from tocsin_server.config.engine_url import check_engine_url, parse_redis_url
from tocsin_server.config.options import EngineOptions


@pytest.mark.parametrize(
    "url",
    [
        "memory://",
        "redis://127.0.0.1",
        "redis://[::1]:6379/0",
        "redis://:p%40ss@redis.example.com:6380/2",
        "rediss://user:pass@h?ssl_ca_certs=/etc/ca.pem",
        "rediss://h?ssl_cert_reqs=none&ssl_check_hostname=false",
        "unix:///run/redis.sock",
        "unix:///run/user@1000/redis.sock",
        "redis+unix://me:p%23w@/run/redis.sock?db=2",
        "rediss+sentinel://h/main?ssl_cert_reqs=none&sentinel_password=p@w",
        "redis+sentinel://h/main",
        "redis+sentinel://:pass@a:1,b:2/main/3?sentinel_password=x",
        "redis+cluster://h",
        "redis+cluster://user:pass@a:1,[::1]:2,c",
        "rediss+cluster://a:1,b:2/?ssl_ca_certs=/etc/ca.pem",
    ],
)
def test_a_url_names_an_engine(url: str) -> None:
    """In memory, one Redis, a master behind Sentinels, or a cluster. Memory is the default."""
    assert EngineOptions().url == "memory://"
    assert EngineOptions(url=url).url == url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", '"memory://", "redis://'),
        ("memory://x", '"memory://", "redis://'),
        ("http://h", '"memory://", "redis://'),
        ("cluster://h", '"memory://", "redis://'),
        ("redis://h#fragment", '"memory://", "redis://'),
        ("redis://[::1", '"memory://", "redis://'),
        ("redis://", "a redis:// URL with the host after the scheme"),
        ("redis:/h", "a redis:// URL with the host after the scheme"),
        ("redis://a,b", "a redis:// URL with the host after the scheme"),
        ("redis://h:p", "a redis:// URL with a valid port, or with none"),
        ("redis://h:99999", "a redis:// URL with a valid port, or with none"),
        ("redis://h/x", "a redis:// URL that ends with the number of a database, or without one"),
        ("redis://h/0/1", "a redis:// URL that ends with the number of a database, or without one"),
        ("redis://:p@ss@h", 'a redis:// URL whose password has "%40" in place of "@"'),
        ("redis://h?ssl_ca_certs=x", "a redis:// URL without the unknown option ssl_ca_certs"),
        ("rediss://h?db=1", "a rediss:// URL without the unknown option db"),
        ("rediss://h?ssl_cert_reqs=maybe", "a rediss:// URL whose option ssl_cert_reqs is required or none"),
        ("rediss://h?ssl_ca_certs=", "a rediss:// URL whose option ssl_ca_certs has a value"),
        ("unix://", "a unix:// URL with the path of a socket"),
        ("unix://host/path", "a unix:// URL with the path of a socket"),
        ("unix:///run/redis.sock?db=x", "a unix:// URL whose option db is the number of a database"),
        ("unix:///run/redis.sock?password=x", "a unix:// URL without the unknown option password"),
        ("redis+sentinel://h", "a redis+sentinel:// URL that names the service, as in …/mymaster"),
        ("redis+sentinel://h/main/x", "a redis+sentinel:// URL that ends with the number of a database"),
        (
            "redis+cluster://",
            "a redis+cluster:// URL with the host after the scheme, or several with commas",
        ),
        ("redis+cluster://a,,b", "a redis+cluster:// URL with the host after the scheme"),
        (
            "redis+cluster://h/1",
            "a redis+cluster:// URL that ends with its hosts: a cluster has no databases",
        ),
    ],
)
def test_an_invalid_url_is_refused_with_what_is_expected(url: str, expected: str) -> None:
    """The message completes the sentence "engine.url must be …"."""
    with pytest.raises(ValueError, match=r"^") as caught:
        check_engine_url(url)
    assert str(caught.value).startswith(expected)
    with pytest.raises(ValidationError):
        EngineOptions(url=url)


@pytest.mark.parametrize(
    ("password", "escapes"),
    [
        ("hush#1", '"%23" in place of "#"'),
        ("hush?1", '"%3F" in place of "?"'),
        ("hush/1", '"%2F" in place of "/"'),
        ("hush[1", '"%5B" in place of "["'),
        ("[hush]", '"%5B" in place of "[" and "%5D" in place of "]"'),
        ("hush@1", '"%40" in place of "@"'),
        ("hu@sh#1", '"%40" in place of "@" and "%23" in place of "#"'),
        ("1/2", '"%2F" in place of "/"'),
    ],
)
@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+sentinel", "redis+cluster"])
@pytest.mark.parametrize("user", ["", "me"])
def test_an_unescaped_character_of_a_password_is_named(
    user: str, scheme: str, password: str, escapes: str
) -> None:
    """Generated passwords have such characters. The message does not show the password."""
    end = "/main" if scheme == "redis+sentinel" else ""
    with pytest.raises(ValueError, match="password") as caught:
        parse_redis_url(f"{scheme}://{user}:{password}@h:6379{end}")
    assert str(caught.value) == f"a {scheme}:// URL whose password has {escapes}"
    assert (
        parse_redis_url(f"{scheme}://{user}:{quote(password, safe='')}@h{end}").credentials["password"]
        == password
    )


def test_a_user_with_an_unescaped_character_is_not_shown() -> None:
    """The rest of it would look like the name of an unknown option."""
    with pytest.raises(ValueError, match="password") as caught:
        parse_redis_url("redis://hush?hush@h")
    assert "hush" not in str(caught.value)


def test_an_option_may_have_a_character_that_a_password_may_not_have() -> None:
    """The advice about passwords is only for what precedes the host."""
    with pytest.raises(ValueError, match="names the service"):
        parse_redis_url("redis+sentinel://:pass@a:1,b:2/?sentinel_password=x@y")


def test_a_redis_url_has_parts() -> None:
    """Its representation shows no password."""
    url = parse_redis_url("redis+sentinel://me:p%40ss@a:1,b/main/3?sentinel_password=secret")
    assert url.hosts == [("a", 1), ("b", 26379)]
    assert url.credentials == {"username": "me", "password": "p@ss"}
    assert (url.service, url.database, url.options) == ("main", 3, {"sentinel_password": "secret"})
    assert "p@ss" not in repr(url)
    assert "secret" not in repr(url)
