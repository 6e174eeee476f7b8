"""What operators are told of alerts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.engine.job import NewJob
from shared.handlers.operator_notices import tell
from shared.handlers.services import Operator
from shared.monitoring.alerts import ToldAlert
from shared.monitoring.meaning import explain
from shared.monitoring.rules import LEVELS

#: More alerts of one run than this are told in one message.
MOST_SINGLY = 5
#: A digest names so many, each in so few characters: a Teams message has at most 28 KB.
MOST_NAMED = 50
LONGEST_NAMED = 140


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
        facts = {
            "alertId": alert.id,
            "key": alert.key,
            "level": alert.level,
            "openedAt": alert.opened_at.isoformat(),
            "resolvedAt": alert.resolved_at.isoformat() if alert.resolved_at else None,
        }
        event = "alert.resolved" if alert.resolved_at else "alert.opened"
        link = self.operator.link(f"alerts/{alert.id}")
        key = f"alert:{_told_as(alert)}"
        return tell(self.operator, key, _title(alert), _text(alert), link=link, event=event, facts=facts)

    def _digest(self, alerts: Sequence[ToldAlert]) -> list[NewJob]:
        ended = sum(alert.resolved_at is not None for alert in alerts)
        title = f"[fleet-queue] {len(alerts) - ended} alerts opened, {ended} resolved"
        by_weight = sorted(alerts, key=lambda alert: (alert.resolved_at is not None, -LEVELS.index(alert.level)))
        lines = [_cut(_title(alert)) for alert in by_weight[:MOST_NAMED]]
        if len(alerts) > MOST_NAMED:
            lines.append(f"and {len(alerts) - MOST_NAMED:,} more")
        text = "\n".join(lines)
        facts = {"opened": len(alerts) - ended, "resolved": ended}
        first = min(map(_told_as, alerts))
        link = self.operator.link("alerts?status=open")
        key = f"alerts:{len(alerts)}:{first}"
        return tell(self.operator, key, title, text, link=link, event="alert.digest", facts=facts)


def _told_as(alert: ToldAlert) -> str:
    """What is told of it, once each. A level that it had before it was acknowledged at a lower one is told again."""
    if alert.resolved_at:
        return f"{alert.id}:resolved"
    again = f":since-{alert.acknowledged_at.timestamp()}" if alert.acknowledged_at else ""
    return f"{alert.id}:{alert.level}{again}"


def _cut(title: str) -> str:
    return title if len(title) <= LONGEST_NAMED else f"{title[: LONGEST_NAMED - 1]}…"


def _title(alert: ToldAlert) -> str:
    return f"[fleet-queue] {'resolved' if alert.resolved_at else alert.level}: {alert.title}"


def _text(alert: ToldAlert) -> str:
    lines = [f"Since {alert.opened_at:%Y-%m-%d %H:%M} UTC."]
    if alert.resolved_at:
        lines = [f"From {alert.opened_at:%Y-%m-%d %H:%M} to {alert.resolved_at:%Y-%m-%d %H:%M} UTC."]
    elif alert.acknowledged_at:
        lines.append(f"It has risen since it was acknowledged at {alert.acknowledged_at:%Y-%m-%d %H:%M} UTC.")
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
