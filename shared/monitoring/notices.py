"""What operators are told of alerts and reports, as jobs: in Teams, by mail, and by a signed webhook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.engine.job import HIGHEST_PRIORITY, NewJob
from shared.handlers.dead_letter import NOTICE
from shared.handlers.services import Operator
from shared.monitoring.alerts import ToldAlert
from shared.monitoring.meaning import explain

#: More alerts of one run than this are told in one message.
MOST_SINGLY = 5
LONGEST_TITLE = 140


@dataclass(frozen=True, slots=True)
class Notices:
    """Makes the messages for whichever ways the operator has."""

    operator: Operator

    def jobs(self, alerts: Sequence[ToldAlert]) -> list[NewJob]:
        """A message for each alert and way, or one digest of many alerts."""
        if len(alerts) > MOST_SINGLY:
            return self._digest(alerts)
        return [job for alert in alerts for job in self._single(alert)]

    def _single(self, alert: ToldAlert) -> list[NewJob]:
        what = "resolved" if alert.resolved_at else alert.level
        facts = {
            "alertId": alert.id,
            "key": alert.key,
            "level": alert.level,
            "openedAt": alert.opened_at.isoformat(),
            "resolvedAt": alert.resolved_at.isoformat() if alert.resolved_at else None,
        }
        event = "alert.resolved" if alert.resolved_at else "alert.opened"
        link = self.operator.link(f"alerts/{alert.id}")
        return self._messages(f"alert:{alert.id}:{what}", _title(alert), _text(alert), link, event, facts)

    def _digest(self, alerts: Sequence[ToldAlert]) -> list[NewJob]:
        ended = sum(alert.resolved_at is not None for alert in alerts)
        title = f"[fleet-queue] {len(alerts) - ended} alerts opened, {ended} resolved"
        text = "\n".join(_title(alert) for alert in alerts)
        facts = {"opened": len(alerts) - ended, "resolved": ended}
        first = min(f"{alert.id}:{'resolved' if alert.resolved_at else alert.level}" for alert in alerts)
        link = self.operator.link("alerts?status=open")
        return self._messages(f"alerts:{len(alerts)}:{first}", title, text, link, "alert.digest", facts)

    def _messages(
        self, key: str, title: str, text: str, link: str | None, event: str, facts: dict[str, Any]
    ) -> list[NewJob]:
        operator = self.operator
        text = f"{text}\n\nSee it: {link}" if link else text
        payloads: list[tuple[str, dict[str, Any]]] = []
        if operator.chat_id:
            payloads.append(
                ("teams-outbound", {"chatId": operator.chat_id, "content": f"{title}\n{text}", "contentType": "text"})
            )
        if operator.mail_from and operator.mail_to:
            payloads.append(("outlook-outbound", mail(operator, title, text, "text")))
        if operator.endpoint:
            url = {"url": link} if (link or "").startswith("https://") else {}
            told = {"title": title[:LONGEST_TITLE], "body": text[:4000], "type": event, "data": facts}
            payloads.append(("notifications", {"channel": "webhook", "endpoint": operator.endpoint, **told, **url}))
        return [notice(queue, payload, key) for queue, payload in payloads]


def mail(operator: Operator, subject: str, body: str, body_type: str) -> dict[str, Any]:
    """A mail to the operator, as a payload of outlook-outbound."""
    return {
        "from": operator.mail_from,
        "to": [operator.mail_to],
        "subject": subject,
        "body": body,
        "bodyType": body_type,
    }


def notice(queue: str, payload: dict[str, Any], key: str) -> NewJob:
    """A job that no dead letter of its own is told of (shared/handlers/dead_letter.py)."""
    name = f"{NOTICE}:{key}"
    return NewJob(queue, payload, HIGHEST_PRIORITY, idempotency_key=name, correlation_id=name)


def _title(alert: ToldAlert) -> str:
    return f"[fleet-queue] {'resolved' if alert.resolved_at else alert.level}: {alert.title}"


def _text(alert: ToldAlert) -> str:
    lines = [f"Since {alert.opened_at:%Y-%m-%d %H:%M} UTC."]
    if alert.resolved_at:
        lines = [f"From {alert.opened_at:%Y-%m-%d %H:%M} to {alert.resolved_at:%Y-%m-%d %H:%M} UTC."]
    for name, label in (
        ("threshold", "Threshold"),
        ("reason", "Reason"),
        ("problem", "Problem"),
    ):
        if alert.details.get(name) is not None:
            lines.append(f"{label}: {alert.details[name]}")
    if not alert.resolved_at:
        told = explain(alert.key, alert.details)
        lines += [f"What it means: {told.meaning}", f"What to do: {told.remedy}"]
    lines.append(f"Alert: {alert.id} ({alert.key})")
    return "\n".join(lines)
