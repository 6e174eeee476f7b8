"""The transaction in which alerts are judged and told: one evaluation at a time, all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, LiteralString

import psycopg

from shared.engine.json_text import to_json
from shared.monitoring.alerts import FLAPPING, Board, Figures, Judgement, ToldAlert, Watched
from shared.monitoring.rules import RULES, TIMERS, Threshold
from shared.monitoring.statistics import BUCKET
from shared.postgres.pool import Database
from shared.postgres.statistics import measure, overview

LOCK_KEY = 0x416C6572747321  # any number, the same for every host
#: What came up once and has nobody to resolve it is over when it was not repeated for so long.
QUIET = timedelta(days=1)
#: Whoever opens these resolves them.
OWNED = ("identity", "certificate", "schedule", "subscriptions", *RULES)

# A growing backlog of which nothing has ended: since the last end, or since its oldest job was ready.
_STALLED: LiteralString = """
select b.queue, least(b.oldest_ready_seconds, extract(epoch from %(now)s - e.at)::float8)
  from queue.backlog() b
 cross join lateral (
    select max(t.finished_at) as at from queue.job_tracking t
     where t.queue = b.queue and t.finished_at > %(now)s - interval '1 day' and t.finished_at <= %(now)s) e
 cross join lateral (
    select coalesce((select k.ready from queue.queue_statistics k
                      where k.queue = b.queue and k.ready is not null and k.bucket_at <= %(now)s - interval '10 minutes'
                        and k.bucket_at > %(now)s - interval '1 hour'
                      order by k.bucket_at desc limit 1), 0) as ready) before
 where b.ready > before.ready
"""
# What failed longer ago was counted then. An entry without a class of error was deferred, and has not failed.
_RETRIED: LiteralString = """
select l.queue, count(*) from queue.later l cross join lateral jsonb_array_elements(l.attempts) a
 where l.attempt > 0 and a ? 'error_class' and (a ->> 'finished_at')::timestamptz > %(now)s - %(window)s
 group by l.queue
"""
_TIMERS: LiteralString = """
select n.timer, extract(epoch from %(now)s - coalesce(
           t.last_finished_at, (select max(v.applied_at) from queue.schema_version v)))::float8
  from unnest(%(timers)s::text[]) n(timer) left join queue.timer_turn t on t.timer = n.timer
"""
_WATCHED: LiteralString = """
with lately as (
    select a.alert_key, count(*) as times from queue.queue_alerts a
     where a.opened_at > %(now)s - %(flapping)s and split_part(a.alert_key, ':', 1) = any(%(rules)s)
     group by 1
),
open as (
    select a.alert_key from queue.queue_alerts a
     where a.resolved_at is null and split_part(a.alert_key, ':', 1) = any(%(rules)s)
)
select k.alert_key, s.breached_since, s.calm_since, o.alert_key is not null, coalesce(l.times, 0)
  from (select alert_key from lately union select alert_key from open union select alert_key from queue.alert_state) k
  left join queue.alert_state s on s.alert_key = k.alert_key
  left join open o on o.alert_key = k.alert_key
  left join lately l on l.alert_key = k.alert_key
"""
_OPEN: LiteralString = """
insert into queue.queue_alerts as a (alert_key, level, title, details, value, threshold, opened_at, updated_at)
values (%(key)s, %(level)s, %(title)s, %(details)s, %(value)s, %(threshold)s, %(now)s, %(now)s)
on conflict (alert_key) where resolved_at is null do update
   set level = excluded.level, title = excluded.title, details = excluded.details, value = excluded.value,
       threshold = excluded.threshold, updated_at = excluded.updated_at, occurrences = a.occurrences + 1
"""
# Its title says what was, and what is now.
_CALM: LiteralString = """
update queue.queue_alerts a
   set title = coalesce(a.details ->> 'was', a.title) || '; now ' || %(told)s, value = coalesce(%(value)s, a.value),
       details = a.details
           || jsonb_build_object('was', coalesce(a.details ->> 'was', a.title), 'now', %(value)s::float8)
 where a.alert_key = %(key)s and a.resolved_at is null
"""
_REMEMBER: LiteralString = """
insert into queue.alert_state (alert_key, breached_since, calm_since) values (%(key)s, %(breached)s, %(calm)s)
on conflict (alert_key) do update set breached_since = excluded.breached_since, calm_since = excluded.calm_since
"""
_OVER: LiteralString = """
update queue.queue_alerts a set resolved_at = %(now)s
 where a.resolved_at is null
   and case when a.alert_key like 'dead-letter:%%' and a.details ? 'errorClass'
            then not exists (select from queue.dead_letter_queue d
                              where d.queue = a.details ->> 'queue' and d.error_class = a.details ->> 'errorClass'
                                and d.redriven_at is null and d.discarded_at is null and d.reviewed_at is null)
            else split_part(a.alert_key, ':', 1) <> all(%(owned)s) and a.updated_at < %(now)s - %(quiet)s end
"""
# The handler of dead letters tells of their alerts itself, with the reason of the first.
_TOLD_ALREADY: LiteralString = """
update queue.queue_alerts set sent_level = level
 where alert_key like 'dead-letter:%' and resolved_at is null and sent_level is null
"""
# An acknowledgement sets sent_level to the level that it saw.
_UNTOLD: LiteralString = """
select id, alert_key, level, title, details, opened_at, resolved_at, acknowledged_at from queue.queue_alerts
 where resolved_at is null
   and (sent_level is null and acknowledged_at is null or array_position(array['info', 'warning', 'critical'], level)
                              > array_position(array['info', 'warning', 'critical'], sent_level))
union all
(select id, alert_key, level, title, details, opened_at, resolved_at, acknowledged_at from queue.queue_alerts
  where resolved_at is not null and sent_level is not null and resolved_sent_at is null and acknowledged_at is null)
 order by opened_at, id
"""
_MARK: LiteralString = """
update queue.queue_alerts
   set sent_level = level, resolved_sent_at = case when resolved_at is not null then %s end
 where id = any(%s)
"""


class PostgresAlertBoards:
    """See shared.monitoring.alerts.Boards. `clock` is the SQL that tells the time; tests have their own."""

    def __init__(self, database: Database, clock: LiteralString = "clock_timestamp()") -> None:
        self._database = database
        self._clock = clock

    @contextmanager
    def evaluation(self) -> Iterator[Board | None]:
        with self._database.transaction() as conn:
            row: Any = conn.execute(
                f"select pg_try_advisory_xact_lock(%s), {self._clock}",
                (LOCK_KEY,),
            ).fetchone()
            yield _Board(conn, row[1]) if row[0] else None


class _Board:
    """See shared.monitoring.alerts.Board."""

    def __init__(self, conn: psycopg.Connection, now: datetime) -> None:
        self.conn = conn
        self.now = now

    def figures(self) -> Figures:
        measure(self.conn, self.now)
        stalled = self.conn.execute(_STALLED, {"now": self.now}).fetchall()
        timers = self.conn.execute(_TIMERS, {"now": self.now, "timers": list(TIMERS)}).fetchall()
        retried = self.conn.execute(_RETRIED, {"now": self.now, "window": BUCKET}).fetchall()
        return Figures(overview(self.conn), dict(stalled), dict(timers), dict(retried))

    def thresholds(self) -> Mapping[tuple[str, str], Threshold]:
        rows = self.conn.execute("select rule, scope, warning, critical from queue.alert_thresholds").fetchall()
        return {(rule, scope): Threshold(warning, critical) for rule, scope, warning, critical in rows}

    def watched(self) -> Mapping[str, Watched]:
        values = {"now": self.now, "flapping": FLAPPING, "rules": list(RULES)}
        return {row[0]: Watched(*row[1:]) for row in self.conn.execute(_WATCHED, values).fetchall()}

    def record(self, judgements: Iterable[Judgement]) -> None:
        for judgement in judgements:
            if judgement.resolve:
                self.conn.execute(
                    "update queue.queue_alerts set resolved_at = %s where alert_key = %s and resolved_at is null",
                    (self.now, judgement.key),
                )
            elif judgement.level is not None:
                self.conn.execute(_OPEN, _alert(judgement) | {"now": self.now})
            elif judgement.is_calm:
                self.conn.execute(_CALM, _calm(judgement))
            after = judgement.after
            if after.breached_since is None and after.calm_since is None:
                self.conn.execute("delete from queue.alert_state where alert_key = %s", (judgement.key,))
            else:
                values = {"key": judgement.key, "breached": after.breached_since, "calm": after.calm_since}
                self.conn.execute(_REMEMBER, values)

    def resolve_what_is_over(self) -> None:
        self.conn.execute(_OVER, {"now": self.now, "owned": list(OWNED), "quiet": QUIET})

    def untold(self) -> Sequence[ToldAlert]:
        self.conn.execute(_TOLD_ALREADY)
        return [ToldAlert(str(row[0]), *row[1:]) for row in self.conn.execute(_UNTOLD).fetchall()]

    def mark_told(self, alerts: Sequence[ToldAlert]) -> None:
        self.conn.execute(_MARK, (self.now, [alert.id for alert in alerts]))


def _calm(judgement: Judgement) -> dict[str, Any]:
    reading = judgement.reading
    told = reading.rule.measured(reading.value) if reading is not None else "nothing is measured"
    return {"key": judgement.key, "told": told, "value": round(reading.value, 4) if reading is not None else None}


def _alert(judgement: Judgement) -> dict[str, Any]:
    reading = judgement.reading
    if reading is None:
        raise AssertionError("an alert opens by a reading")
    rule = reading.rule
    details = {
        rule.per: reading.scope,
        "rule": rule.name,
        "value": round(reading.value, 4),
        "threshold": judgement.passed,
        "unit": rule.unit,
        "remedy": rule.remedy,
    }
    return {
        "key": judgement.key,
        "level": judgement.level,
        "title": rule.title.format(scope=reading.scope, value=reading.value),
        "details": to_json(details),
        "value": reading.value,
        "threshold": judgement.passed,
    }
