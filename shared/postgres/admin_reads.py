"""See shared.admin.ports.Reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.admin.cursor import Place
from shared.admin.job_filter import JobFilter
from shared.engine.job import JobRecord
from shared.postgres import admin_graph, admin_jobs, admin_letters, admin_lists, job_labels
from shared.postgres.circumstances import circumstances
from shared.postgres.pool import Database

Row = Mapping[str, Any]


class PostgresReads:
    """Each a statement or two on a connection of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def jobs(self, jobs: JobFilter, after: Place | None, limit: int) -> list[Row]:
        with self._database.connection() as conn:
            return admin_letters.with_letters(conn, admin_jobs.list_jobs(conn, jobs, after, limit))

    def job_facts(self, jobs: Sequence[Row]) -> Mapping[UUID, Row]:
        with self._database.connection() as conn:
            return job_labels.facts(conn, jobs)

    def related(self, job_id: UUID, batch_id: UUID | None) -> list[Row]:
        with self._database.connection() as conn:
            return admin_jobs.related_jobs(conn, job_id, batch_id)

    def circumstances(self, job: JobRecord, other: UUID | None, mailbox: str | None) -> Row | None:
        with self._database.connection() as conn:
            return circumstances(conn, job, other, mailbox)

    def letters(self, filters: Mapping[str, Any], after: Place | None, limit: int) -> list[Row]:
        with self._database.connection() as conn:
            return [*admin_letters.list_letters(conn, filters, after, limit)]

    def letter(self, letter_id: UUID) -> Row | None:
        with self._database.connection() as conn:
            return admin_letters.letter(conn, letter_id)

    def letter_groups(self, queue: str | None, reviewed: bool | None, most: int) -> tuple[list[Row], int]:
        with self._database.connection() as conn:
            found, counted = admin_letters.groups(conn, queue, reviewed, most)
        return [*found], counted

    def open_letters(self, filters: Mapping[str, Any], limit: int) -> list[Row]:
        with self._database.connection() as conn:
            return [*admin_letters.open_letters(conn, filters, limit)]

    def alerts(self, filters: Mapping[str, Any], after: Place | None, limit: int) -> list[Row]:
        with self._database.connection() as conn:
            return [*admin_lists.list_alerts(conn, filters, after, limit)]

    def alert(self, alert_id: UUID) -> Row | None:
        with self._database.connection() as conn:
            return admin_lists.show_alert(conn, alert_id)

    def audit(self, filters: Mapping[str, Any], after: Place | None, limit: int) -> list[Row]:
        with self._database.connection() as conn:
            return [*admin_lists.list_audit(conn, filters, after, limit)]

    def subscriptions(self, status: str | None, after: Place | None, limit: int) -> list[Row]:
        with self._database.connection() as conn:
            return [*admin_graph.list_subscriptions(conn, status, after, limit)]

    def subscription_counts(self) -> Row:
        with self._database.connection() as conn:
            return admin_graph.subscription_counts(conn)

    def syncs(self, filters: Mapping[str, Any], after: Place | None, limit: int) -> list[Row]:
        with self._database.connection() as conn:
            return [*admin_graph.list_syncs(conn, filters, after, limit)]

    def queues(self) -> list[str]:
        with self._database.connection() as conn:
            return admin_lists.queue_names(conn)

    def limits(self, queue: str) -> Row:
        with self._database.connection() as conn:
            return admin_lists.show_limits(conn, queue)

    def open_alerts(self) -> tuple[datetime, Mapping[str, int]]:
        with self._database.connection() as conn:
            return admin_lists.open_alerts(conn)
