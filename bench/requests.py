"""What the admin API is asked by `bench.views`: each read route in several ways, and what the dashboard's views ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from bench.history import ANNOUNCEMENT, BATCH, CLEARED_UNTIL
from shared.admin.cursor import Place, write_cursor
from shared.handlers.registry import QUEUES


@dataclass(frozen=True, slots=True)
class Ask:
    """A request: the path as in the routes, and what is in it."""

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    route: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        path = self.path.format(**{name: "…" if name == "id" else value for name, value in self.route.items()})
        shown = {name: "…" if name in ("cursor", "search") else value for name, value in self.query.items()}
        text = path + ("?" + "&".join(f"{name}={value}" for name, value in shown.items()) if shown else "")
        return f"{text} ({self.note})" if self.note else text


def requests(conn: psycopg.Connection) -> list[Ask]:
    """Every read route, in the ways that a person or a dashboard asks it, the rare and the hard ones too."""
    deep = write_cursor(Place(datetime.now(UTC) - timedelta(days=15), UUID(int=2**127)))
    clear = "after a clearing"
    cleared = {"cursor": write_cursor(Place(CLEARED_UNTIL, UUID(int=2**127)))}
    jobs = "{queue}/jobs"
    found: list[Ask] = [Ask(path) for path in ("openapi.json", "stats", "prometheus", "me", "schedules", "thresholds")]
    found += [Ask("metrics", {"timeRange": span}) for span in ("1h", "6h", "24h", "7d", "30d")]
    found += [Ask("metrics", {"timeRange": span, "queue": "teams-outbound"}) for span in ("24h", "30d")]
    for queue in ("teams-outbound", "attachments", "webhooks", "subscriptions"):
        found += [Ask(jobs, {}, {"queue": queue}), Ask(jobs, {"cursor": deep}, {"queue": queue})]
        for status in ("ready", "active", "scheduled", "waiting", "completed", "dead", "cancelled"):
            found.append(Ask(jobs, {"status": status}, {"queue": queue}))
        found.append(Ask("{queue}/failed", {}, {"queue": queue}))
    found += [
        Ask(jobs, {"limit": "200"}, {"queue": "teams-outbound"}),
        Ask(jobs, {"status": "completed", "cursor": deep}, {"queue": "teams-outbound"}),
        Ask(jobs, {"status": "completed"} | cleared, {"queue": "attachments"}, clear),
        Ask(jobs, {"status": "dead"} | cleared, {"queue": "attachments"}, clear),
        Ask(jobs, {"status": "dead", "cursor": deep}, {"queue": "outlook-outbound"}),
        Ask("{queue}/failed", {"cursor": deep}, {"queue": "outlook-outbound"}),
    ]
    ids = _ids(conn)
    searches = ids | {"id of many": ANNOUNCEMENT, "of none": "x", "key": _key(conn), "id of some": _correlation(conn)}
    for note, search in searches.items():
        found.append(Ask("jobs", {"search": search}, note=note))
        found.append(Ask(jobs, {"search": search}, {"queue": "teams-outbound"}, note))
    found.append(Ask("{queue}/failed", {"search": ANNOUNCEMENT}, {"queue": "teams-outbound"}))
    found += [Ask("jobs", {"search": search}, note=note) for note, search in _of_messages(conn).items()]
    everywhere = [{}, {"status": "dead"}, {"status": "completed"}, {"errorClass": "auth"}, {"errorClass": "expired"}]
    hour = {"from": (datetime.now(UTC) - timedelta(days=9, hours=1)).isoformat()}
    hour["to"] = (datetime.now(UTC) - timedelta(days=9)).isoformat()
    found += [Ask("jobs", filters) for filters in (*everywhere, {"cursor": deep})]
    found += [Ask("jobs", filters | hour, note="of an hour") for filters in everywhere]
    found += [Ask(jobs, {"errorClass": "expired"}, {"queue": "teams-outbound"}), Ask("dead-letter", hour)]
    found += [Ask("jobs/{id}", {}, {"id": one}, note) for note, one in ids.items()]
    found += [Ask("{queue}/limits", {}, {"queue": queue}) for queue in QUEUES]
    letters = [{}, {"status": "open"}, {"status": "redriven"}, {"status": "discarded"}, {"reviewed": "true"}]
    letters += [{"status": "open", "reviewed": "false"}, {"status": "open", "reviewed": "true"}, {"cursor": deep}]
    letters += [{"status": "open", "cursor": deep}, {"queue": "teams-outbound", "status": "open"}]
    letters += [{"queue": "sync", "status": "discarded", "reviewed": "true"}, {"queue": "webhooks"}]
    letters += [{"errorClass": "auth"}, {"errorClass": "auth", "status": "redriven"}, {"errorClass": "never"}]
    pattern = {"pattern": "the peer does not answer (b), case #"}
    letters += [pattern, pattern | {"status": "open"}, {"pattern": "never"}, {"pattern": "never", "status": "open"}]
    letters += [{"queue": "teams-outbound", "errorClass": "network", "status": "open"} | pattern]
    letters += [{"queue": "teams-outbound", "errorClass": "network", "pattern": "never"}]
    found += [Ask("dead-letter", filters) for filters in letters]
    groups = [{}, {"reviewed": "false"}, {"reviewed": "true"}, {"queue": "teams-outbound"}, {"queue": "webhooks"}]
    found += [Ask("dead-letter/groups", filters) for filters in groups]
    found += [Ask("dead-letter/{id}", {}, {"id": ids[note]}, note) for note in ("dead", "never")]
    found += [Ask("alerts", filters) for filters in ({}, {"status": "open"}, {"level": "critical"}, {"cursor": deep})]
    found += [Ask("alerts", {"status": "open", "level": "critical"}), Ask("alerts", {"status": "resolved"})]
    found += [Ask("subscriptions", filters) for filters in ({}, {"status": "covered"}, {"status": "uncovered"})]
    found += [
        Ask("subscriptions", {"status": "failing"}),
        Ask("reports"),
        Ask("reports/{day}", {}, {"day": _day(conn)}),
    ]
    found += [Ask("alerts/{id}", {}, {"id": _alert(conn)}), Ask("schedule-times", {"cron": "*/5 * * * *"})]
    one = {"account": "user-77@fleet.example"}
    syncs = [{}, {"cursor": deep}, one, {"resourceType": "emails"}, {"resourceType": "files"}]
    syncs += [one | {"resourceType": "emails"}, {"account": "never"}, {"account": "never", "resourceType": "emails"}]
    found += [Ask("syncs", filters) for filters in syncs]
    audit = [{}, {"cursor": deep}, {"who": "operator-7"}, {"who": "never"}, {"action": "queue.pause"}]
    audit += [{"action": "never"}, {"target": "never"}, {"who": "operator-7", "action": "queue.pause"}]
    found += [Ask("audit", filters) for filters in audit]
    return found


def views(conn: psycopg.Connection) -> dict[str, list[Ask]]:
    """What each view of the dashboard asks, as shared/web/views/*.js does; the frame asks for the figures of now."""
    stats, jobs, ids = Ask("stats"), "{queue}/jobs", _ids(conn)
    one, attachments = {"queue": "teams-outbound"}, {"queue": "attachments"}
    return {
        "overview, 24 hours": [stats, Ask("metrics", {"timeRange": "24h"})],
        "overview, 30 days": [stats, Ask("metrics", {"timeRange": "30d"})],
        "jobs of a queue": [stats, Ask(jobs, {}, one)],
        "jobs of a queue that run": [stats, Ask(jobs, {"status": "active"}, one)],
        "jobs of a cleared queue that completed": [stats, Ask(jobs, {"status": "completed"}, attachments)],
        "jobs by an id that many carry": [stats, Ask("jobs", {"search": ANNOUNCEMENT})],
        "a dead job": [stats, Ask("jobs/{id}", {}, {"id": ids["dead"]})],
        "a job of a large batch": [stats, Ask("jobs/{id}", {}, {"id": ids["of a batch"]})],
        "dead letters": [stats, Ask("dead-letter/groups"), Ask("dead-letter", {"status": "open"})],
        "dead letters that nobody has reviewed": [
            stats,
            Ask("dead-letter/groups", {"reviewed": "false"}),
            Ask("dead-letter", {"status": "open", "reviewed": "false"}),
        ],
        "a dead letter": [stats, Ask("dead-letter/{id}", {}, {"id": ids["dead"]})],
        "schedules": [stats, Ask("schedules")],
        "limits": [stats, *(Ask("{queue}/limits", {}, {"queue": queue}) for queue in QUEUES)],
        "subscriptions": [stats, Ask("subscriptions")],
        "syncs": [stats, Ask("syncs")],
        "syncs of an account": [stats, Ask("syncs", {"account": "user-77@fleet.example"})],
        "alerts": [stats, Ask("alerts", {"status": "open"})],
        "an alert": [stats, Ask("alerts/{id}", {}, {"id": _alert(conn)})],
        "thresholds": [stats, Ask("thresholds")],
        "reports": [stats, Ask("reports")],
        "a report": [stats, Ask("reports/{day}", {}, {"day": _day(conn)})],
        "audit": [stats, Ask("audit")],
    }


def _ids(conn: psycopg.Connection) -> dict[str, str]:
    history = "select id from queue.job_tracking where"
    statements = {
        "dead": f"{history} queue = 'outlook-outbound' and state = 'dead' order by finished_at limit 1",
        "completed": f"{history} queue = 'teams-outbound' order by finished_at desc limit 1",
        "of a batch": f"{history} batch_id = '{BATCH}' limit 1",
        "ready": "select id from queue.job limit 1",
        "never": "select '01a2108a-1e28-7df7-80d2-6f458516e508'::uuid",
    }
    return {name: str(_one(conn, statement)) for name, statement in statements.items()}


def _of_messages(conn: psycopg.Connection) -> dict[str, str]:
    """What callers have of messages."""
    logs = "from queue.communication_logs where channel ="
    job = str(_one(conn, "select id from queue.job_tracking where queue = 'teams-outbound' limit 1"))
    return {
        "chat": str(_one(conn, f"select thread_id {logs} 'teams' limit 1")),
        "recipient": str(_one(conn, f"select recipients[1] {logs} 'outlook' limit 1")),
        "message": str(_one(conn, f"select split_part(external_id, '/', 2) {logs} 'teams' limit 1")),
        "mail": str(_one(conn, f"select internet_message_id {logs} 'outlook' limit 1")),
        "beginning of an id": f"{job[:8]}…{job[-4:]}",
    }


def _key(conn: psycopg.Connection) -> str:
    return str(_one(conn, "select key from queue.idempotency limit 1"))


def _alert(conn: psycopg.Connection) -> str:
    return str(_one(conn, "select id from queue.queue_alerts where resolved_at is not null limit 1"))


def _day(conn: psycopg.Connection) -> str:
    return str(_one(conn, "select max(day) from queue.daily_report"))


def _correlation(conn: psycopg.Connection) -> str:
    return str(_one(conn, "select correlation_id from queue.job_tracking where correlation_id like 'trip%' limit 1"))


def _one(conn: psycopg.Connection, statement: str) -> Any:
    row = conn.execute(statement.encode()).fetchone()
    if row is None:
        raise RuntimeError(f"nothing is found by: {statement}")
    return row[0]
