"""The application's credential: exactly one, and an error that names the variable and what to do."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shared.engine.errors import Problem
from shared.graph.credentials import (
    ClientCertificate,
    ClientSecret,
    FederatedToken,
    ManagedIdentity,
)
from shared.graph_settings import CREDENTIALS, GraphSettings
from shared.settings import load, problems
from shared.settings_errors import SettingsError
from tests.certificates import new_certificate, usual_certificate

PEM = usual_certificate().pem()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in GraphSettings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    monkeypatch.setenv("GRAPH_TENANT_ID", "tenant")
    monkeypatch.setenv("GRAPH_CLIENT_ID", "client")


def refusal() -> list[Problem]:
    with pytest.raises(SettingsError) as caught:
        load(GraphSettings)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("name", "value", "credential"),
    [
        ("GRAPH_CLIENT_SECRET", "s", ClientSecret("s")),
        ("GRAPH_MANAGED_IDENTITY", "system", ManagedIdentity()),
        ("GRAPH_MANAGED_IDENTITY", "System", ManagedIdentity()),
        ("GRAPH_MANAGED_IDENTITY", "c-1", ManagedIdentity("c-1")),
        ("GRAPH_FEDERATED_IDENTITY", "system", FederatedToken(ManagedIdentity())),
        ("GRAPH_FEDERATED_IDENTITY", "c-1", FederatedToken(ManagedIdentity("c-1"))),
        ("GRAPH_FEDERATED_TOKEN_FILE", "/var/run/token", FederatedToken(Path("/var/run/token"))),
    ],
)
def test_each_variable_is_a_credential(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, credential: object
) -> None:
    monkeypatch.setenv(name, value)
    assert load(GraphSettings).credential() == credential


def test_none_is_an_error_that_names_all() -> None:
    [problem] = refusal()
    assert problem.field == "GRAPH_CLIENT_SECRET"
    assert all(name in problem.message for name in CREDENTIALS[1:])


def test_every_further_credential_is_to_be_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS[:3]:
        monkeypatch.setenv(name, "hidden")
    assert refusal() == [
        Problem("GRAPH_CERTIFICATE", "GRAPH_CLIENT_SECRET is set too; remove one of them"),
        Problem("GRAPH_CERTIFICATE_FILE", "GRAPH_CLIENT_SECRET is set too; remove one of them"),
    ]


def test_a_managed_identity_needs_tenant_and_client_for_service_accounts_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GRAPH_TENANT_ID")
    monkeypatch.delenv("GRAPH_CLIENT_ID")
    monkeypatch.setenv("GRAPH_MANAGED_IDENTITY", "system")
    assert load(GraphSettings).tenant_id == ""
    monkeypatch.setenv("GRAPH_SERVICE_ACCOUNT", "queue@fleet.example")
    assert {problem.field for problem in refusal()} == {"GRAPH_TENANT_ID", "GRAPH_CLIENT_ID"}


def test_a_password_without_a_certificate_is_to_be_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPH_CLIENT_SECRET", "s")
    monkeypatch.setenv("GRAPH_CERTIFICATE_PASSWORD", "p")
    assert [problem.field for problem in refusal()] == ["GRAPH_CERTIFICATE_PASSWORD"]


BAD_CERTIFICATES = [
    ("rubbish", None, "neither PEM nor PKCS #12"),
    (base64.b64encode(b"rubbish").decode(), None, "no PKCS #12 file (PFX), or the password is wrong"),
    (base64.b64encode(usual_certificate().pfx("right")).decode(), "wrong", "or the password is wrong"),
    (usual_certificate().certificate, None, "holds no private key"),
    (usual_certificate().private_key(), None, "holds no certificate"),
    (usual_certificate().pem("right"), None, "the private key is encrypted"),
    (usual_certificate().pem("right"), "wrong", "the password is wrong"),
    (PEM, "needless", "not encrypted, but a password is set"),
    (PEM.replace("MII", "MIX", 1), None, "the private key cannot be read"),
    (usual_certificate().private_key() + new_certificate().certificate, None, "of another certificate"),
    (new_certificate(key=ec.generate_private_key(ec.SECP256R1())).pem(), None, "no RSA key"),
    ("@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/c)", None, "was not resolved"),
]


@pytest.mark.parametrize(
    ("text", "password", "reason"), BAD_CERTIFICATES, ids=[reason for *_, reason in BAD_CERTIFICATES]
)
def test_a_certificate_that_cannot_be_used_says_why_and_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, text: str, password: str | None, reason: str
) -> None:
    monkeypatch.setenv("GRAPH_CERTIFICATE", text)
    if password is not None:
        monkeypatch.setenv("GRAPH_CERTIFICATE_PASSWORD", password)
    [problem] = refusal()
    assert problem.field == "GRAPH_CERTIFICATE"
    assert reason in problem.message
    assert "BEGIN" not in problem.message.partition("(-----BEGIN")[0]
    assert problem in problems()


def test_a_file_that_cannot_be_read_names_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPH_CERTIFICATE_FILE", str(tmp_path / "none.pem"))
    assert refusal() == [Problem("GRAPH_CERTIFICATE_FILE", "the file cannot be read (FileNotFoundError)")]


def test_of_a_chain_the_key_chooses_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    own, issuer = usual_certificate(), new_certificate()
    monkeypatch.setenv("GRAPH_CERTIFICATE", own.private_key() + issuer.certificate + own.certificate)
    credential = load(GraphSettings).credential()
    assert isinstance(credential, ClientCertificate)
    assert credential.certificate == own.certificate
    assert "PRIVATE" not in repr(credential)
    assert credential.private_key not in repr(load(GraphSettings))
