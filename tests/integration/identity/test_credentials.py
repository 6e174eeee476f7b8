"""Every way to prove the application, from the settings to an answer of Graph; the fake authority checks each proof."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from local.fake_graph.managed_identity import APP_SERVICE, HEADER
from local.fake_graph.registration import EXCHANGE, USER_IDENTITY
from local.fake_graph.state import CLIENT, TENANT
from shared import bootstrap
from shared.graph.errors import TokenRefused
from shared.graph.tokens import AppTokens
from tests.certificates import Certificate, new_certificate
from tests.integration.identity.conftest import SERVICE, Product

Prove = Callable[..., None]
ISSUER = "https://issuer.example/cluster-7"
SUBJECT = "system:serviceaccount:fleet:queue"


@pytest.fixture
def prove(product: Product, monkeypatch: pytest.MonkeyPatch) -> Prove:
    """Give the process these credentials in place of the secret."""

    def set_them(**settings: str) -> None:
        monkeypatch.delenv("GRAPH_CLIENT_SECRET", raising=False)
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        product.environment.update(settings)
        bootstrap.stop()

    return set_them


@pytest.fixture
def app_service(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    """What App Service tells an app with a managed identity."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", product.graph.base_url + APP_SERVICE)
    monkeypatch.setenv("IDENTITY_HEADER", HEADER)


def works(product: Product) -> None:
    """A mail goes out, and nothing in the calls broke the contract."""
    product.post(1, "outlook-outbound")
    product.work_until_empty("outlook-outbound")
    assert product.states() == {"completed": 1}
    assert product.graph.violations() == []


def refusal() -> TokenRefused:
    with pytest.raises(TokenRefused) as caught:
        AppTokens(bootstrap.application(), bootstrap.graph_session()).token()
    return caught.value


def trust(product: Product, certificate: Certificate) -> None:
    product.graph.control("POST", "app/certificates", {"pem": certificate.certificate})


@pytest.mark.parametrize("form", ["pem", "one line", "pfx in base64", "pem file", "pfx file", "encrypted pem"])
def test_a_certificate_in_any_form(product: Product, prove: Prove, tmp_path: Path, form: str) -> None:
    certificate = new_certificate()
    trust(product, certificate)
    match form:
        case "pem":
            prove(GRAPH_CERTIFICATE=certificate.pem())
        case "one line":
            prove(GRAPH_CERTIFICATE=certificate.pem().replace("\n", "\\n"))
        case "pfx in base64":
            prove(GRAPH_CERTIFICATE=base64.b64encode(certificate.pfx()).decode())
        case "pem file":
            (tmp_path / "app.pem").write_text(certificate.pem())
            prove(GRAPH_CERTIFICATE_FILE=str(tmp_path / "app.pem"))
        case "pfx file":
            (tmp_path / "app.pfx").write_bytes(certificate.pfx("pass word"))
            prove(GRAPH_CERTIFICATE_FILE=str(tmp_path / "app.pfx"), GRAPH_CERTIFICATE_PASSWORD="pass word")
        case "encrypted pem":
            prove(GRAPH_CERTIFICATE=certificate.pem("pass word"), GRAPH_CERTIFICATE_PASSWORD="pass word")
    works(product)


def test_a_certificate_that_the_tenant_does_not_know_is_told_with_its_remedy(product: Product, prove: Prove) -> None:
    trust(product, new_certificate())
    prove(GRAPH_CERTIFICATE=new_certificate().pem())
    failure = refusal()
    assert failure.codes == (700027,)
    assert "The key was not found" in str(failure)
    assert "Upload the certificate" in failure.remedy


def test_an_expired_certificate_is_told_and_one_that_ends_soon_is_warned_of(product: Product, prove: Prove) -> None:
    expired = new_certificate(days=-1)
    trust(product, expired)
    prove(GRAPH_CERTIFICATE=expired.pem())
    assert refusal().codes == (700027,)
    for days, alert in ((-1, ("critical", True)), (20, ("warning", True)), (400, None)):
        product.sql.execute("delete from queue.queue_alerts")
        certificate = new_certificate(days=days)
        prove(GRAPH_CERTIFICATE=certificate.pem())
        bootstrap.identity_watch().run()
        wanted = [("certificate:application", *alert)] if alert else []
        assert product.alerts() == wanted
    assert bootstrap.application().credential.expires_at > datetime.now(UTC)  # type: ignore[union-attr]


def test_the_warning_ends_when_the_certificate_is_replaced(product: Product, prove: Prove) -> None:
    prove(GRAPH_CERTIFICATE=new_certificate(days=5).pem())
    bootstrap.identity_watch().run()
    assert product.alerts() == [("certificate:application", "critical", True)]
    prove(GRAPH_CERTIFICATE=new_certificate(days=400).pem())
    bootstrap.identity_watch().run()
    assert product.alerts() == [("certificate:application", "critical", False)]


@pytest.mark.usefixtures("app_service")
@pytest.mark.parametrize("identity", ["system", USER_IDENTITY])
def test_a_managed_identity_calls_graph_itself(
    product: Product, prove: Prove, monkeypatch: pytest.MonkeyPatch, identity: str
) -> None:
    for name in ("GRAPH_TENANT_ID", "GRAPH_CLIENT_ID", "GRAPH_SERVICE_ACCOUNT"):
        monkeypatch.delenv(name)
    prove(GRAPH_MANAGED_IDENTITY=identity)
    works(product)
    assert product.token_requests() == 1


def test_a_managed_identity_of_a_virtual_machine(
    product: Product, prove: Prove, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IDENTITY_ENDPOINT", raising=False)
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", product.graph.base_url)
    prove(GRAPH_MANAGED_IDENTITY="system")
    works(product)
    product.graph.control("POST", "identities", {})
    assert "Identity not found" in str(refusal())


@pytest.mark.usefixtures("app_service")
def test_without_a_managed_identity_the_remedy_says_what_to_switch_on(product: Product, prove: Prove) -> None:
    prove(GRAPH_MANAGED_IDENTITY="cccccccc-0000-4000-8000-00000000ffff")
    failure = refusal()
    assert "No Managed Identity found" in str(failure)
    assert "GRAPH_MANAGED_IDENTITY" in failure.remedy
    product.post(1, "outlook-outbound")
    product.work("outlook-outbound")
    assert product.alerts() == [("identity:application", "critical", True)]


@pytest.mark.usefixtures("app_service")
@pytest.mark.parametrize("kind", ["secret", "certificate", "managed identity"])
def test_the_service_account_is_refreshed_as_the_public_client_that_signed_it_in(
    product: Product, prove: Prove, kind: str
) -> None:
    """Entra ID refuses such a refresh token where the application proves itself beside it (AADSTS700025)."""
    if kind == "certificate":
        certificate = new_certificate()
        trust(product, certificate)
        prove(GRAPH_CERTIFICATE=certificate.pem())
    elif kind == "managed identity":
        prove(GRAPH_MANAGED_IDENTITY="system")
    product.sign_in()
    assert bootstrap.service_account_tokens(SERVICE).token(refused="")
    form = product.graph.requests()[-1]["body"]
    assert form["grant_type"] == "refresh_token" and not {"client_secret", "client_assertion"} & form.keys()


@pytest.mark.usefixtures("app_service")
def test_a_managed_identity_answers_a_claims_challenge(product: Product, prove: Prove) -> None:
    prove(GRAPH_MANAGED_IDENTITY="system")
    product.graph.add_fault("status", path="/messages", status=401)
    works(product)
    assert product.token_requests() == 2


@pytest.mark.usefixtures("app_service")
def test_the_app_registration_trusts_a_managed_identity(product: Product, prove: Prove) -> None:
    principal = "dddddddd-0000-4000-8000-000000000001"
    trusted = {"issuer": f"{product.graph.base_url}/{TENANT}/v2.0", "subject": principal}
    prove(GRAPH_FEDERATED_IDENTITY="system")
    assert refusal().codes == (70025,)
    product.graph.control("POST", "app/federated", trusted | {"subject": "somebody-else"})
    assert refusal().codes == (700213,)
    product.graph.control("POST", "app/federated", trusted)
    works(product)
    product.sign_in()
    assert bootstrap.service_account_tokens(SERVICE).token(refused="")


@pytest.mark.usefixtures("app_service")
def test_a_federated_identity_that_is_not_there_names_its_setting(prove: Prove) -> None:
    prove(GRAPH_FEDERATED_IDENTITY="cccccccc-0000-4000-8000-00000000ffff")
    assert "GRAPH_FEDERATED_IDENTITY" in refusal().remedy


def test_a_token_file_is_read_anew_whenever_it_is_needed(product: Product, prove: Prove, tmp_path: Path) -> None:
    issuer = Issuer()
    product.graph.control("POST", "app/federated", issuer.credential())
    file = tmp_path / "token"
    prove(GRAPH_FEDERATED_TOKEN_FILE=str(file))
    assert "cannot be read (FileNotFoundError)" in str(refusal())
    for changes, code in (
        ({"exp": int(time.time()) - 60}, 700024),
        ({"iss": "https://other.example"}, 700211),
        ({"aud": "api://other"}, 700212),
        ({"sub": "other"}, 700213),
    ):
        file.write_text(issuer.token(**changes))
        assert refusal().codes == (code,)
    file.write_text(Issuer().token())
    assert refusal().codes == (900384,)
    file.write_text(issuer.token() + "\n")
    works(product)


def test_both_identities_answer_claims_challenges(product: Product) -> None:
    product.sign_in()
    for queue, path in (("outlook-outbound", "/messages$"), ("teams-outbound", "/chats/")):
        product.graph.add_fault("claims-challenge", path=path)
        product.post(1, queue)
        product.work_until_empty(queue)
        claims = [one for one in product.graph.requests() if "nbf" in str((one["body"] or {}).get("claims"))]
        assert len(claims) == 1
        product.graph.control("DELETE", "requests")
    assert product.states() == {"completed": 2}


class Issuer:
    """An issuer outside the tenant, such as a Kubernetes cluster."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(65537, 2048)

    def credential(self) -> dict[str, str]:
        public = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return {"issuer": ISSUER, "subject": SUBJECT, "key": public.decode()}

    def token(self, **changes: Any) -> str:
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": SUBJECT, "aud": EXCHANGE, "iat": now, "nbf": now, "exp": now + 3600}
        return jwt.encode(claims | changes, self.key, algorithm="RS256")


def test_the_fake_checks_what_an_assertion_says(product: Product) -> None:
    """MSAL makes no wrong assertions, so here they are made by hand."""
    certificate = new_certificate()
    trust(product, certificate)
    endpoint = f"{product.graph.authority}/{TENANT}/oauth2/v2.0/token"
    now = int(time.time())
    good = {"iss": CLIENT, "sub": CLIENT, "aud": endpoint, "nbf": now, "exp": now + 600}

    def code_of(changes: dict[str, Any], key: Certificate = certificate, algorithm: str = "PS256") -> int:
        assertion = jwt.encode(
            good | changes, key.private_key(), algorithm=algorithm, headers={"x5t#S256": certificate.thumbprint()}
        )
        form = {
            "client_id": CLIENT,
            "grant_type": "client_credentials",
            "scope": "https://graph.microsoft.com/.default",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": assertion,
        }
        answer = bootstrap.graph_session().post(endpoint, data=form).json()
        return int(answer["error_codes"][0]) if "error" in answer else 0

    assert code_of({}) == 0
    assert code_of({}, algorithm="RS256") == 0
    assert code_of({"aud": "https://elsewhere.example"}) == 700023
    assert code_of({"sub": "another"}) == 700021
    assert code_of({"exp": now - 1}) == 700024
    assert code_of({}, key=new_certificate()) == 700027
    assert timedelta(0) < certificate.not_after - datetime.now(UTC)
