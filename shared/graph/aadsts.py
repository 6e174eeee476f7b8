"""What the authority's AADSTS codes mean here, and what a person does about each.

Source: learn.microsoft.com, reference-error-codes (identity platform) and, for federated tokens, the troubleshooting
of workload identities. The codes only choose the words, and tell a lost sign-in from a wrong setting.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto


class Needs(Enum):
    """Who can help."""

    SETTING = auto()  # whoever runs the app: a credential, a setting, a consent
    SIGN_IN = auto()  # the service account: somebody signs it in again
    TIME = auto()  # nobody: it passes


@dataclass(frozen=True, slots=True)
class Meaning:
    """`remedy` is a sentence, or several; before a sign-in it says what else is to be done, if anything."""

    needs: Needs
    remedy: str


def _setting(remedy: str) -> Meaning:
    return Meaning(Needs.SETTING, remedy)


def _sign_in(remedy: str = "") -> Meaning:
    return Meaning(Needs.SIGN_IN, remedy)


_PASSES = Meaning(Needs.TIME, "")
_GRANT = "An administrator must grant the application its permissions in this tenant (Grant admin consent)."
_FEDERATED = "Compare the federated credential of the app registration with the token:"
_PUBLIC = (
    "Allow public client flows on the app registration, and add http://localhost as a redirect URI of the platform"
    " Mobile and desktop applications."
)

MEANINGS: dict[int, Meaning] = {
    # The application's credential
    7000215: _setting("Put the secret's value (not its id) into GRAPH_CLIENT_SECRET."),
    7000222: _setting("The secret has expired: make a new one and put it into GRAPH_CLIENT_SECRET."),
    7000216: _setting("Set one credential: GRAPH_CLIENT_SECRET, or a certificate, or an identity."),
    700027: _setting(
        "Upload the certificate (without its key) to the app registration, or put the one that is there and has not"
        " expired into GRAPH_CERTIFICATE."
    ),
    700024: _setting("Correct this machine's clock; a token of GRAPH_FEDERATED_TOKEN_FILE must be renewed in time."),
    50012: _setting("The certificate is not accepted: compare GRAPH_CERTIFICATE with the app registration's."),
    700030: _setting("The certificate's subject is not allowed: compare it with the app registration's."),
    700025: _setting("The app registration is a public client only: register a secret or a certificate with it."),
    # The application and its tenant
    700016: _setting("Check GRAPH_CLIENT_ID and GRAPH_TENANT_ID: this tenant does not know the application."),
    7000112: _setting("The application is disabled: enable it (Enterprise applications, Properties)."),
    70001: _setting("The application is disabled, or is of another tenant: check GRAPH_CLIENT_ID and GRAPH_TENANT_ID."),
    90002: _setting("Check GRAPH_TENANT_ID: there is no such tenant."),
    900023: _setting("Check GRAPH_TENANT_ID: it is no tenant's id or domain."),
    500011: _setting("Check GRAPH_TENANT_ID: Microsoft Graph is not in this tenant."),
    # Federated tokens
    700211: _setting(f"{_FEDERATED} no credential has this issuer."),
    700212: _setting(f"{_FEDERATED} no credential has this audience (api://AzureADTokenExchange)."),
    700213: _setting(f"{_FEDERATED} no credential has this subject."),
    70021: _setting(f"{_FEDERATED} issuer, subject and audience must all be the same."),
    70025: _setting("Add a federated credential to the app registration: it has none."),
    700223: _setting(
        "The tenant does not allow federated credentials: an administrator must, or use another credential."
    ),
    700229: _setting("Only an application's or a managed identity's token may stand for the application."),
    # Consent
    65001: _sign_in(_GRANT),
    65004: _sign_in("The consent was declined: accept it."),
    90094: _sign_in(_GRANT),
    650056: _setting(_GRANT),
    70011: _setting("The app registration lacks a delegated permission of docs/reference/graph.md: add it."),
    # The sign-in itself
    50173: _sign_in("The sign-in was revoked, or the password changed."),
    50132: _sign_in("The password changed or expired."),
    50133: _sign_in("The password changed or expired."),
    70000: _sign_in(),
    70008: _sign_in("The sign-in ran out because nobody used it for long."),
    700082: _sign_in("The sign-in ran out because nobody used it for long."),
    700084: _sign_in("The app registration has the redirect URI as a single-page application: use Mobile and desktop."),
    70043: _sign_in("A policy of the tenant (sign-in frequency) ends sign-ins: exclude the service account from it."),
    54005: _sign_in("The code was used already."),
    70019: _sign_in("The code was not entered in time."),
    # What the tenant demands of the account
    50076: _sign_in("The tenant demands multi-factor authentication of the account."),
    50079: _sign_in("The account must register for multi-factor authentication first."),
    50072: _sign_in("The account must register for multi-factor authentication first."),
    50074: _sign_in("The tenant demands multi-factor authentication of the account."),
    50078: _sign_in("The multi-factor authentication has run out."),
    53000: _sign_in(
        "A policy of the tenant demands a compliant device: exclude the service account, or use such a one."
    ),
    53003: _sign_in("A Conditional Access policy blocks the account: an administrator must change or exclude it."),
    53004: _sign_in("The account must register for multi-factor authentication first."),
    530032: _sign_in("A security policy of the tenant blocks the account: an administrator must change or exclude it."),
    50105: _sign_in("An administrator must assign the account to the application (Enterprise applications)."),
    # The account
    50034: _sign_in("There is no such account in the tenant: check GRAPH_SERVICE_ACCOUNT."),
    50020: _sign_in("The account is of another tenant: check GRAPH_SERVICE_ACCOUNT and GRAPH_TENANT_ID."),
    50053: _sign_in("The account is locked after wrong passwords, or its address is blocked: unlock it."),
    50055: _sign_in("The account's password has expired: change it."),
    50144: _sign_in("The account's password has expired: change it."),
    50057: _sign_in("The account is disabled: enable it."),
    50126: _sign_in("User name or password was wrong."),
    # How one signs in
    50011: _sign_in(_PUBLIC),
    7000218: _sign_in(_PUBLIC),
    # What passes
    50033: _PASSES,
    50196: _PASSES,
    90006: _PASSES,
    90012: _PASSES,
    90024: _PASSES,
    90033: _PASSES,
    90055: _PASSES,
    90090: _PASSES,
}


def meaning(codes: Iterable[int]) -> Meaning | None:
    """Of the first code that is known."""
    return next((MEANINGS[code] for code in codes if code in MEANINGS), None)
