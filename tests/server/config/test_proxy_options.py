"""[proxies.NAME]: which options are valid, which sections name a proxy, and what does not agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.server.conftest import new_certificate
from tocsin_server.cli.doctor import findings
from tocsin_server.config.contradictions import contradictions
from tocsin_server.config.errors import ConfigError
from tocsin_server.config.exposure import exposures
from tocsin_server.config.loading import Settings, load_settings
from tocsin_server.config.proxy_options import ProxyOptions
from tocsin_server.config.tls_files import tls_file_problems

BACK = {"url": "https://app.example/centrifugo/{event}"}


def settings(**sections: Any) -> Settings:
    return Settings.model_validate(sections)


def asked_about_connect(**options: Any) -> Settings:
    return settings(client={"connect_proxy": "back"}, proxies={"back": {**BACK, **options}})


def problems_of(tmp_path: Path, text: str) -> tuple[str, ...]:
    file = tmp_path / "tocsin.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_settings(file)
    return raised.value.problems


@pytest.mark.parametrize(
    ("url", "is_valid"),
    [
        ("http://app/", True),
        ("http://[::1]:9000/centrifugo/{event}", True),
        ("https://app.example/hooks?event={event}&key=1", True),
        ("https://app.example", True),
        ("https://{event}.example/", False),
        ("https://app.example/{method}", False),
        ("https://user:password@app.example/", False),
        ("https://app.example/#fragment", False),
        ("https://app.example/a b", False),
        ("https://app.example:port/", False),
        ("grpc://app.example:9000", False),
        ("app.example/connect", False),
        ("https:///connect", False),
    ],
)
def test_the_address_is_http_or_https(url: str, is_valid: bool) -> None:
    if is_valid:
        assert ProxyOptions(url=url).url == url
    else:
        with pytest.raises(ValidationError):
            ProxyOptions(url=url)


def test_each_event_has_its_address() -> None:
    assert ProxyOptions(url=BACK["url"]).url_of("sub_refresh") == "https://app.example/centrifugo/sub_refresh"
    assert ProxyOptions(url="http://app/hook").url_of("connect") == "http://app/hook"


def test_names_of_headers_are_compared_without_case() -> None:
    options = ProxyOptions.model_validate(
        {"http_headers": "Cookie, X-Real-IP", "static_headers": {"Authorization": "Bearer x"}}
    )
    assert options.http_headers == ("cookie", "x-real-ip")
    assert options.static_headers == {"authorization": "Bearer x"}
    text = ProxyOptions.model_validate({"static_headers": '{"X-Custom": "1"}'})
    assert text.static_headers == {"x-custom": "1"}


@pytest.mark.parametrize("name", ["Content-Length", "host", "X-Tocsin-Signature", "a b", "", "a:b"])
def test_headers_that_only_the_node_sets_are_refused(name: str) -> None:
    for key, value in (("http_headers", [name]), ("static_headers", {name: "1"})):
        with pytest.raises(ValidationError):
            ProxyOptions.model_validate({key: value})


def test_an_unknown_proxy_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    (problem,) = problems_of(
        tmp_path, '[namespaces.chat]\nsubscribe_proxy = "bakend"\n[proxies.backend]\nurl = "http://app/"\n'
    )
    assert problem == (
        'namespaces.chat.subscribe_proxy is "bakend", but there is no section [proxies.bakend]; '
        "did you mean backend?"
    )


def test_a_proxy_needs_an_address(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "[proxies.back]\ntimeout = 1\n")
    assert problem.startswith("[proxies.back] needs url, such as ")


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    text = '[proxies.back]\nurl = "http://app/"\nsecret = "hush"\nstatic_headers = {Authorization = "hüsh"}\n'
    for problem in problems_of(tmp_path, text):
        assert "hush" not in problem
        assert "hüsh" not in problem
        assert problem.endswith("because it is a secret.")
    assert "hush" not in repr(ProxyOptions(secret="hush" * 8, static_headers={"x": "hush"}))


def test_the_environment_sets_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_PROXIES__BACK__URL", "http://app/{event}")
    monkeypatch.setenv("TOCSIN_CLIENT__RPC_PROXY", "back")
    assert load_settings().proxies["back"].url == "http://app/{event}"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (settings(proxies={"back": BACK}), ["[proxies.back] has no effect", "client.connect_proxy"]),
        (
            asked_about_connect(url="http://app/", tls_ca="/ca.pem"),
            ["proxies.back.tls_ca is set", "no https:// address"],
        ),
        (
            asked_about_connect(http_headers=["Cookie"], static_headers={"cookie": "a=1"}),
            ["proxies.back.http_headers has cookie", "static_headers replaces it"],
        ),
    ],
)
def test_options_that_do_not_agree_have_a_sentence(given: Settings, words: list[str]) -> None:
    (sentence,) = contradictions(given)
    assert all(word in sentence for word in words)


def test_exposure_names_what_a_back_end_decides() -> None:
    lines = [str(one) for one in exposures(asked_about_connect())]
    assert "clients: those without a token are decided about by the proxy back" in lines
    assert "proxy back: https://app.example decides (client.connect_proxy)" in lines
    chat = settings(namespaces={"chat": {"subscribe_proxy": "back"}}, proxies={"back": BACK})
    lines = [str(one) for one in exposures(chat)]
    assert "channels: those of [namespaces.chat] need a subscription token, or the answer of a proxy" in lines


def test_files_of_certificates_are_checked(tmp_path: Path) -> None:
    certificate, key = str(tmp_path / "a.crt"), str(tmp_path / "a.key")
    new_certificate(certificate, key)
    good = {"tls_ca": certificate, "tls_certificate": certificate, "tls_key": key}
    assert tls_file_problems(asked_about_connect(**good)) == []
    (missing,) = tls_file_problems(asked_about_connect(tls_ca="/missing.pem"))
    assert (
        missing
        == "proxies.back.tls_ca is /missing.pem, but that file cannot be read: No such file or directory."
    )
    (wrong,) = tls_file_problems(asked_about_connect(tls_ca=key))
    assert wrong.endswith("but that file has no certificates in PEM form.")
    (half,) = tls_file_problems(asked_about_connect(tls_certificate=certificate))
    assert half == "proxies.back.tls_certificate is set, but not proxies.back.tls_key: TLS needs both."


def test_the_doctor_knows_proxies(tmp_path: Path) -> None:
    file = tmp_path / "tocsin.toml"
    file.write_text(
        '[client]\nconnect_proxy = "back"\n'
        '[proxies.back]\nurl = "http://app.example/"\nsecret = "secretsecretsecret"\n'
    )
    found = {one["check"]: one["level"] for one in findings(file, 10)}
    assert found["proxies.back.url"] == "warning"
    assert found["proxies.back.secret"] == "error"
