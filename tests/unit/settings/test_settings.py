"""Settings: groups that fail one by one, every problem at once, by name and remedy and never by value."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import pytest

from shared import bootstrap
from shared.bootstrap.engine import SETTINGS_PAUSE, _parse_stored
from shared.bootstrap.identity import NoAccount
from shared.bootstrap.services import HandlerServices
from shared.engine.errors import PayloadError, Problem, RejectedError
from shared.engine.job import NewJob
from shared.graph_settings import GraphSettings
from shared.settings import (
    GROUPS,
    AdminSettings,
    DatabaseSettings,
    EncryptionSettings,
    OperatorSettings,
    StorageSettings,
    SubscriptionSettings,
    WebhookSettings,
    load,
    problems,
)
from shared.settings_errors import SettingsError
from shared.teams_settings import TeamsSettings

GOOD = {
    "DATABASE_URL": "postgresql://user:hidden-password@db/fleet",
    "QueueStorage": "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=hidden-account-key==",
    "WEBHOOK_SECRET": "hidden-webhook-secret-0123456789-0123",
    "WEBHOOK_BASE_URL": "https://app.example/api/",
    "ADMIN_KEY": "hidden-admin-key-0123456789-012345678",
    "GRAPH_TENANT_ID": "tenant",
    "GRAPH_CLIENT_ID": "client",
    "GRAPH_CLIENT_SECRET": "hidden-client-secret",
    "ENCRYPTION_KEY": base64.b64encode(b"e" * 32).decode(),
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Good settings and nothing else of ours."""
    ours = {field.alias for group in GROUPS for field in group.model_fields.values()}
    for name in list(os.environ):
        if name in ours:
            monkeypatch.delenv(name)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def refusal(group: Any) -> list[Problem]:
    with pytest.raises(SettingsError) as caught:
        load(group)
    return list(caught.value.problems)


def test_good_settings_have_no_problems() -> None:
    assert problems() == []
    assert load(DatabaseSettings).url.get_secret_value() == GOOD["DATABASE_URL"]
    assert load(SubscriptionSettings).base_url == "https://app.example/api"
    assert load(GraphSettings).base_url == "https://graph.microsoft.com/v1.0"


def test_all_problems_are_told_at_once_each_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GOOD:
        monkeypatch.delenv(name)
    found = {problem.field: problem.message for problem in problems()}
    assert set(found) == set(GOOD)
    assert all("it is not set" in message and len(message) > 30 for message in found.values())


def test_an_empty_variable_counts_as_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", "")
    assert [problem.field for problem in refusal(WebhookSettings)] == ["WEBHOOK_SECRET"]


def test_one_missing_group_leaves_the_others_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPH_CLIENT_SECRET")
    load(WebhookSettings)
    load(StorageSettings)
    assert [problem.field for problem in refusal(GraphSettings)] == ["GRAPH_CLIENT_SECRET"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WEBHOOK_SECRET", "x" * 31),
        ("WEBHOOK_SECRET_PREVIOUS", "hidden"),
        ("ADMIN_KEY", "hidden"),
        ("ADMIN_KEY_PREVIOUS", "hidden"),
        ("ENCRYPTION_KEY", "hidden!"),
        ("ENCRYPTION_KEY", base64.b64encode(b"hidden").decode()),
        ("GRAPH_BASE_URL", "http://graph.hidden.example"),
        ("WEBHOOK_BASE_URL", "ftp://hidden"),
        ("DATABASE_POOLER", "hidden"),
        ("WEBHOOK_SECRET", "@Microsoft.KeyVault(SecretUri=https://hidden.vault.azure.net/secrets/webhook/)"),
        ("DATABASE_URL", "@Microsoft.KeyVault(SecretUri=https://hidden.vault.azure.net/secrets/database/)"),
    ],
)
def test_a_wrong_value_is_told_by_name_and_not_repeated(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    (problem,) = problems()
    assert problem.field == name
    assert "hidden" not in problem.message
    assert value not in problem.message


def test_two_addresses_of_the_storage_account_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QueueStorage")
    monkeypatch.setenv("QueueStorage__queueServiceUri", "https://one.queue.core.windows.net")
    assert load(StorageSettings).service_uri == "https://one.queue.core.windows.net"
    monkeypatch.setenv("QueueStorage__accountName", "two")
    (problem,) = refusal(StorageSettings)
    assert problem.field == "QueueStorage__accountName"
    assert "QueueStorage__queueServiceUri" in problem.message


def test_a_connection_string_and_an_address_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QueueStorage__queueServiceUri", "https://one.queue.core.windows.net")
    assert [problem.field for problem in refusal(StorageSettings)] == ["QueueStorage"]


def test_half_an_operators_mail_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPERATOR_MAIL_FROM", "dispatch@fleet.example")
    assert [problem.field for problem in refusal(OperatorSettings)] == ["OPERATOR_MAIL_TO"]


def test_secrets_show_in_no_representation_and_are_known_to_the_logs() -> None:
    for group in (DatabaseSettings, StorageSettings, WebhookSettings, AdminSettings, GraphSettings, EncryptionSettings):
        settings = load(group)
        assert "hidden" not in repr(settings) + str(settings)
        assert set(settings.secrets()) & set(GOOD.values())


def test_the_previous_encryption_keys_are_a_list_and_each_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    old, older = (base64.b64encode(letter * 32).decode() for letter in (b"o", b"p"))
    monkeypatch.setenv("ENCRYPTION_KEY", GOOD["ENCRYPTION_KEY"])
    monkeypatch.setenv("ENCRYPTION_KEYS_PREVIOUS", f"{old}, {older}")
    settings = load(EncryptionSettings)
    assert settings.keys == settings.secrets() == [GOOD["ENCRYPTION_KEY"], old, older]
    monkeypatch.setenv("ENCRYPTION_KEYS_PREVIOUS", f"{old},hidden!")
    with pytest.raises(SettingsError, match="ENCRYPTION_KEYS_PREVIOUS: key 2: it is not base64") as raised:
        load(EncryptionSettings)
    assert "hidden" not in str(raised.value) and old not in str(raised.value)


def test_every_field_has_a_name_and_a_remedy() -> None:
    for group in GROUPS:
        for field in group.model_fields.values():
            assert field.alias
            assert field.description


def test_bootstrap_builds_once_and_a_failed_build_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap.stop()
    monkeypatch.setenv("ADMIN_KEY", "short")
    with pytest.raises(SettingsError):
        bootstrap.admin_access()
    monkeypatch.setenv("ADMIN_KEY", GOOD["ADMIN_KEY"])
    assert bootstrap.admin_access() is bootstrap.admin_access()
    bootstrap.stop()


def test_a_handler_without_settings_waits_and_does_not_fail_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap.stop()
    monkeypatch.delenv("GRAPH_CLIENT_SECRET")
    waiting: Any = bootstrap.handler_for("outlook-outbound")
    outcome = waiting(None, None, None)
    assert outcome.delay == SETTINGS_PAUSE
    monkeypatch.setenv("GRAPH_CLIENT_SECRET", GOOD["GRAPH_CLIENT_SECRET"])
    assert bootstrap.handler_for("outlook-outbound") is not waiting
    bootstrap.stop()


def test_everything_can_be_built_from_good_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap.stop()
    monkeypatch.setenv("GRAPH_SERVICE_ACCOUNT", "queue@fleet.example")
    parts = [bootstrap.inbox, bootstrap.relay, bootstrap.rescue, bootstrap.partitions, bootstrap.intake]
    parts += [bootstrap.admin_access, bootstrap.health, bootstrap.reconciler, bootstrap.mail, bootstrap.teams]
    parts += [bootstrap.poison_sweep, bootstrap.upkeep_timer, bootstrap.watched_resources]
    parts += [bootstrap.bot, bootstrap.workflows, bootstrap.activity_feed]
    assert all(part() is part() for part in parts)
    for queue in (
        "teams-outbound",
        "outlook-outbound",
        "teams-inbound",
        "outlook-inbound",
        "subscriptions",
        "dead-letter",
    ):
        assert bootstrap.handler_for(queue) is bootstrap.handler_for(queue)
    bootstrap.stop()


def test_service_accounts_are_a_list_and_the_first_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap.stop()
    monkeypatch.setenv("GRAPH_SERVICE_ACCOUNT", "queue@fleet.example, Alerts@fleet.example")
    assert bootstrap.teams() is bootstrap.teams_as("QUEUE@fleet.example")
    assert bootstrap.teams_as("alerts@fleet.example") is not bootstrap.teams()
    assert bootstrap.service_account_tokens("alerts@fleet.example") is bootstrap.service_account_tokens(
        "Alerts@fleet.example"
    )
    assert HandlerServices().service_account == "queue@fleet.example"
    with pytest.raises(RejectedError, match=r"other@fleet\.example is no service account"):
        bootstrap.teams_as("other@fleet.example")
    with pytest.raises(SettingsError, match=r"other@fleet\.example is not in it"):
        bootstrap.sign_in(account="other@fleet.example")
    bootstrap.stop()


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a@b.c,A@B.C", "names an account twice"), ("queue", "must be a user name"), ("a@b.c,", "each")],
)
def test_wrong_service_accounts_are_named(monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
    monkeypatch.setenv("GRAPH_SERVICE_ACCOUNT", text)
    with pytest.raises(SettingsError, match=reason):
        load(GraphSettings)


def test_without_a_service_account_teams_can_be_read_and_posting_says_what_to_do() -> None:
    from shared.graph.errors import TokenRefused

    bootstrap.stop()
    assert bootstrap.teams().own_account_id() is None
    with pytest.raises(TokenRefused, match="GRAPH_SERVICE_ACCOUNT"):
        NoAccount().token()
    with pytest.raises(SettingsError, match="GRAPH_SERVICE_ACCOUNT"):
        bootstrap.sign_in()
    bootstrap.stop()


WORKFLOW = "https://flow.example/workflows/1/invoke?sig=hidden-signature"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("TEAMS_SENDERS", '{"*": "pigeon"}', "has no sender"),
        ("TEAMS_SENDERS", '{"*": "workflow:none"}', "names workflows that TEAMS_WORKFLOWS lacks: none"),
        ("TEAMS_WORKFLOWS", "hidden", "is not JSON"),
        ("TEAMS_WORKFLOWS", '["hidden"]', "must be a JSON object"),
        ("TEAMS_WORKFLOWS", '{"alerts": "http://hidden.example"}', "an address that begins with https://"),
        ("TEAMS_WORKFLOW_LOST", "hidden", "stop"),
        ("TEAMS_BOT_SERVICE_URL", "http://hidden.example", "must begin with https://"),
    ],
)
def test_wrong_senders_are_told_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str) -> None:
    monkeypatch.setenv(name, value)
    (problem,) = problems()
    assert (problem.field, why in problem.message) == (name, True)
    assert "hidden" not in problem.message


def test_half_a_bot_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAMS_BOT_CLIENT_ID", "bot")
    assert [problem.field for problem in refusal(TeamsSettings)] == ["TEAMS_BOT_CLIENT_SECRET"]


def test_the_addresses_of_workflows_are_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAMS_WORKFLOWS", json.dumps({"alerts": WORKFLOW}))
    monkeypatch.setenv("TEAMS_SENDERS", '{"19:a@*": "workflow:alerts"}')
    settings = load(TeamsSettings)
    assert WORKFLOW in settings.secrets()
    assert "hidden" not in repr(settings) + str(settings)


def test_a_bot_of_its_own_and_the_applications_bot(monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap.stop()
    assert bootstrap.bot().app_id == GOOD["GRAPH_CLIENT_ID"]
    bootstrap.stop()
    monkeypatch.setenv("TEAMS_BOT_CLIENT_ID", "bot")
    monkeypatch.setenv("TEAMS_BOT_CLIENT_SECRET", "hidden-bot-secret")
    assert bootstrap.bot().app_id == "bot"
    bootstrap.stop()


def test_a_bot_that_is_a_managed_identity_is_known_by_its_client_id(monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap.stop()
    monkeypatch.delenv("GRAPH_CLIENT_SECRET")
    monkeypatch.setenv("GRAPH_MANAGED_IDENTITY", "identity-client")
    assert bootstrap.bot().app_id == "identity-client"
    bootstrap.stop()
    monkeypatch.setenv("GRAPH_MANAGED_IDENTITY", "system")
    with pytest.raises(SettingsError, match="a bot needs its client id in place of system"):
        bootstrap.bot()
    bootstrap.stop()


def test_who_only_enqueues_needs_no_graph_and_is_told_of_wrong_senders(monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap.stop()
    monkeypatch.delenv("GRAPH_CLIENT_SECRET")
    message = NewJob("teams-outbound", {"chatId": "19:a@thread.v2", "content": "x", "importance": "high"})
    bootstrap.producer().validate(message)
    bootstrap.stop()
    monkeypatch.setenv("TEAMS_SENDERS", '{"*": "bot"}')
    with pytest.raises(PayloadError, match="importance: a bot's messages have none"):
        bootstrap.producer().validate(message)
    bootstrap.stop()
    monkeypatch.setenv("TEAMS_SENDERS", "{")
    with pytest.raises(SettingsError, match="TEAMS_SENDERS"):
        bootstrap.producer().validate(message)
    bootstrap.stop()


def test_jobs_wait_for_senders_that_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap.stop()
    monkeypatch.setenv("TEAMS_SENDERS", "{")
    payload = _parse_stored("teams-outbound", '{"chatId": "19:a@thread.v2", "content": "x"}')
    waiting: Any = bootstrap.handler_for("teams-outbound")
    assert waiting(None, payload, None).delay == SETTINGS_PAUSE
    bootstrap.stop()


def test_jobs_wait_for_an_account_that_a_rule_names_and_nobody_has_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap.stop()
    monkeypatch.setenv("GRAPH_SERVICE_ACCOUNT", "queue@fleet.example")
    monkeypatch.setenv("TEAMS_SENDERS", '{"19:a@*": "account:Queue@fleet.example", "*": "account:other@fleet.example"}')
    waiting: Any = bootstrap.handler_for("teams-outbound")
    assert waiting(None, None, None).delay == SETTINGS_PAUSE
    monkeypatch.setenv("GRAPH_SERVICE_ACCOUNT", "queue@fleet.example,other@fleet.example")
    bootstrap.stop()
    assert bootstrap.handler_for("teams-outbound") is not waiting
    bootstrap.stop()
