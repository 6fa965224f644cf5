"""[issuers.NAME]: which options are valid, and what a configuration of issuers leaves open."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.support.identity_provider import public_jwk
from tocsin_server.config.contradictions import contradictions
from tocsin_server.config.errors import ConfigError
from tocsin_server.config.exposure import exposures
from tocsin_server.config.issuer_options import IssuerOptions
from tocsin_server.config.loading import Settings, load_settings

IDP = {"issuer": "https://id.example", "jwks_url": "https://id.example/keys"}


def settings(**sections: Any) -> Settings:
    return Settings.model_validate(sections)


@pytest.mark.parametrize(
    ("url", "is_valid"),
    [
        ("https://id.example/keys?x=1", True),
        ("https://id.example:8443/keys", True),
        ("http://127.0.0.1:5/keys", True),
        ("http://[::1]/keys", True),
        ("http://localhost/keys", True),
        ("http://id.example/keys", False),
        ("http://127.0.0.1.id.example/keys", False),
        ("https://user:password@id.example/keys", False),
        ("https://id.example/keys#fragment", False),
        ("https:///keys", False),
        ("https://id.example:port/keys", False),
        ("file:///etc/passwd", False),
        ("ftp://id.example/keys", False),
        ("keys", False),
        ("https://ïd.example/keys", False),
    ],
)
def test_the_address_of_a_key_set_is_https_or_on_this_machine(url: str, is_valid: bool) -> None:
    if is_valid:
        assert IssuerOptions(jwks_url=url).jwks_url == url
    else:
        with pytest.raises(ValidationError):
            IssuerOptions(jwks_url=url)


@pytest.mark.parametrize(
    ("template", "is_valid"),
    [
        ("news", True),
        ("groups:{groups}", True),
        ("tenant:{tid}/{https://example.com/team}", True),
        ("rooms:{cognito:groups}", True),
        ("{team}", True),
        ("{team}:room", False),
        ("a{team}:room", False),
        ("rooms:{team", False),
        ("rooms:{}", False),
        ("rooms:{{team}}", False),
        ("", False),
    ],
)
def test_a_template_has_claims_in_braces_and_none_in_the_namespace(template: str, is_valid: bool) -> None:
    """A claim must not choose the options of a channel."""
    if is_valid:
        assert IssuerOptions(channels=(template,)).channels == (template,)
    else:
        with pytest.raises(ValidationError):
            IssuerOptions(channels=(template,))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"jwks_url": "https://id.example/keys"}, "[issuers.idp] needs issuer"),
        ({"issuer": "https://id.example"}, "[issuers.idp] needs secrets, keys or jwks_url"),
        ({**IDP, "secrets": ["short"]}, "a secret of at least 32 bytes"),
        ({**IDP, "algorithms": ["none"]}, "issuers.idp.algorithms"),
        ({**IDP, "algorithms": ["ES256K"]}, "issuers.idp.algorithms"),
        ({**IDP, "audience": ["tocsin"]}, "did you mean audiences?"),
        ({**IDP, "user_claim": ""}, "issuers.idp.user_claim"),
        ({**IDP, "required_claims": {"aud": []}}, "issuers.idp.required_claims"),
    ],
)
def test_an_incomplete_section_is_an_error_that_names_it(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, {"issuers": {"idp": section}})
    assert said in str(caught.value)
    assert "short" not in str(caught.value)


def test_two_issuers_have_different_names() -> None:
    """A token belongs to the issuer that it names."""
    with pytest.raises(ValidationError, match=r"as \[issuers.one\] has"):
        settings(issuers={"one": IDP, "two": IDP})
    with pytest.raises(ValidationError, match=r"as client.token_issuer has"):
        settings(client={"token_issuer": IDP["issuer"]}, issuers={"one": IDP})


def test_an_issuer_can_be_configured_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_ISSUERS__IDP__ISSUER", "https://id.example")
    monkeypatch.setenv("TOCSIN_ISSUERS__IDP__JWKS_URL", "https://id.example/keys")
    monkeypatch.setenv("TOCSIN_ISSUERS__IDP__AUDIENCES", "tocsin,other")
    monkeypatch.setenv("TOCSIN_ISSUERS__IDP__REQUIRED_CLAIMS__TOKEN_USE", "access")
    found = load_settings(None).issuers["idp"]
    assert found.audiences == ("tocsin", "other")
    assert found.required_claims == {"token_use": ("access",)}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"leeway": 60}, "issuers.idp.leeway is 60 s, but must be at most client.expired_close_delay"),
        ({"algorithms": ["HS256"]}, "issuers.idp.algorithms has HS256, but no key of [issuers.idp] fits it."),
        ({"algorithms": ["ES256"]}, ""),
        (
            {"jwks_url": "", "keys": [public_jwk("ES256")], "algorithms": ["RS256"]},
            "issuers.idp.algorithms has RS256, but no key",
        ),
        (
            {"channels": ["room:{x}"]},
            'issuers.idp.channels has "room:{x}", but there is no section [namespaces.room]',
        ),
        ({"channels": ["known:{x}", "$known:{x}", "plain"]}, ""),
    ],
)
def test_options_that_do_not_agree_are_sentences(section: dict[str, Any], said: str) -> None:
    found = contradictions(settings(issuers={"idp": {**IDP, **section}}, namespaces={"known": {}}))
    assert len(found) == bool(said)
    assert said in "".join(found)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"idp": IDP}, "those that it made for other applications count too"),
        ({"idp": {**IDP, "audiences": ["a"]}}, ""),
        ({"idp": {**IDP, "required_claims": {"client_id": "a"}}}, ""),
        (
            {"idp": {**IDP, "audiences": ["a"]}, "own": {**IDP, "issuer": "b", "audiences": ["a"]}},
            "it may name users that another issuer names",
        ),
        (
            {
                "idp": {**IDP, "audiences": ["a"], "user_prefix": "a:"},
                "own": {**IDP, "issuer": "b", "audiences": ["a"], "user_prefix": "b:"},
            },
            "",
        ),
    ],
)
def test_what_issuers_leave_open_is_told(sections: dict[str, Any], said: str) -> None:
    advice = [found.advice for found in exposures(settings(issuers=sections)) if "issuer" in found.subject]
    assert said in advice[0]
    assert bool(advice[0]) == bool(said)


def test_an_issuer_opens_the_node_to_clients_with_a_token() -> None:
    lines = [str(found) for found in exposures(settings(issuers={"idp": {**IDP, "audiences": ["a"]}}))]
    assert "clients: need a token" in lines
    assert (
        "issuer idp: tokens with the iss https://id.example are accepted, with the keys at id.example"
        in lines
    )
