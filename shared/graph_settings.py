"""The settings of Microsoft 365: where it is, who the product is there, and what proves that."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from shared.graph.credentials import ClientCertificate, ClientSecret, Credential, FederatedToken, ManagedIdentity
from shared.setting_types import Address, Group, Names, Secret

#: What can prove the application; exactly one is set.
CREDENTIALS = (
    "GRAPH_CLIENT_SECRET",
    "GRAPH_CERTIFICATE",
    "GRAPH_CERTIFICATE_FILE",
    "GRAPH_MANAGED_IDENTITY",
    "GRAPH_FEDERATED_IDENTITY",
    "GRAPH_FEDERATED_TOKEN_FILE",
)


class GraphSettings(Group):
    """The application in Microsoft 365, and the one credential that proves it."""

    tenant_id: str = Field("", alias="GRAPH_TENANT_ID", description="the tenant's id (Entra admin centre, Overview)")
    client_id: str = Field("", alias="GRAPH_CLIENT_ID", description="the app registration's application (client) id")
    client_secret: Secret | None = Field(
        None,
        alias="GRAPH_CLIENT_SECRET",
        description="the value (not the id) of a client secret of the app registration",
    )
    certificate: Secret | None = Field(
        None,
        alias="GRAPH_CERTIFICATE",
        description="certificate with its private key as text: PEM, or PKCS #12 (PFX) in base64",
    )
    certificate_file: Path | None = Field(
        None, alias="GRAPH_CERTIFICATE_FILE", description="the same in a file: PEM, or PKCS #12 (PFX)"
    )
    certificate_password: Secret | None = Field(
        None, alias="GRAPH_CERTIFICATE_PASSWORD", description="password of the certificate's private key, if it has one"
    )
    managed_identity: str | None = Field(
        None,
        alias="GRAPH_MANAGED_IDENTITY",
        description="managed identity that calls Graph itself: system, or a user-assigned one's client id",
    )
    federated_identity: str | None = Field(
        None,
        alias="GRAPH_FEDERATED_IDENTITY",
        description="managed identity that the app registration trusts: system, or a user-assigned one's client id",
    )
    federated_token_file: Path | None = Field(
        None,
        alias="GRAPH_FEDERATED_TOKEN_FILE",
        description="file with a token of an issuer that the app registration trusts",
    )
    base_url: Address = Field(
        "https://graph.microsoft.com/v1.0",
        alias="GRAPH_BASE_URL",
        description="address of Graph; default https://graph.microsoft.com/v1.0",
    )
    authority: Address = Field(
        "https://login.microsoftonline.com",
        alias="GRAPH_AUTHORITY",
        description="address of the authority; default https://login.microsoftonline.com",
    )
    ca_file: str | None = Field(
        None, alias="GRAPH_CA_FILE", description="file of certificates to trust in place of the usual ones"
    )
    service_accounts: Names = Field(
        (),
        alias="GRAPH_SERVICE_ACCOUNT",
        description="user names of the accounts that post to Teams, separated by commas; the first is the default",
    )

    @model_validator(mode="after")
    def _one_identity(self) -> GraphSettings:
        given = [alias for alias in CREDENTIALS if self.given(alias)]
        wrong = [f"{alias}: it is not set; {text}" for alias, text in self._needed(given) if not self.given(alias)]
        if not given:
            wrong.append(f"GRAPH_CLIENT_SECRET: it is not set; set it, or one of {', '.join(CREDENTIALS[1:])}")
        wrong += [f"{alias}: {given[0]} is set too; remove one of them" for alias in given[1:]]
        if self.certificate_password and not (self.certificate or self.certificate_file):
            wrong.append("GRAPH_CERTIFICATE_PASSWORD: there is no certificate that it goes with; remove it")
        if wrong:
            raise ValueError("\n".join(wrong))
        self.credential()
        return self

    def given(self, alias: str) -> bool:
        """Whether this variable is set."""
        fields = type(self).model_fields.items()
        return bool(getattr(self, next(name for name, field in fields if field.alias == alias)))

    def _needed(self, given: list[str]) -> list[tuple[str, str]]:
        """A managed identity needs no app registration, but the service accounts' sign-in does."""
        if given == ["GRAPH_MANAGED_IDENTITY"] and not self.service_accounts:
            return []
        fields = type(self).model_fields
        return [(str(fields[name].alias), str(fields[name].description)) for name in ("tenant_id", "client_id")]

    def credential(self) -> Credential:
        """What proves the application. Raises ValueError where the certificate cannot be used."""
        if self.client_secret is not None:
            return ClientSecret(self.client_secret.get_secret_value())
        if self.managed_identity is not None:
            return _managed(self.managed_identity)
        if self.federated_identity is not None:
            return FederatedToken(_managed(self.federated_identity))
        if self.federated_token_file is not None:
            return FederatedToken(self.federated_token_file)
        return self._read_certificate()

    def _read_certificate(self) -> ClientCertificate:
        from shared.graph.certificate import CertificateError, read_certificate

        alias = "GRAPH_CERTIFICATE_FILE" if self.certificate_file else "GRAPH_CERTIFICATE"
        password = self.certificate_password.get_secret_value() if self.certificate_password else None
        try:
            content = self.certificate_file.read_bytes() if self.certificate_file else _text(self.certificate)
            return read_certificate(content, password)
        except OSError as error:
            raise ValueError(f"{alias}: the file cannot be read ({type(error).__name__})") from None
        except CertificateError as error:
            raise ValueError(f"{alias}: {error}") from None


def _managed(identity: str) -> ManagedIdentity:
    return ManagedIdentity(None if identity.lower() == "system" else identity)


def _text(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""
