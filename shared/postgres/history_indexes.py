"""Indexes of the history for a migration to come, built a day at a time while jobs go on being settled.

`create index … on queue.job_tracking` builds the index of every partition in one transaction, and nothing settles until
its commit. Where a partition has an index of the same definition already, PostgreSQL takes that one and builds nothing.
So what a migration will ask for is built before it, each partition in a transaction of its own: only jobs that end
today ever wait, and for as long as today's partition takes. A runner that is killed leaves whole indexes behind, and
the next goes on with the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
from psycopg import sql

#: In a migration: the index's name and all that follows the table's.
_INDEX = re.compile(r"^create index job_tracking_(\w+) on queue\.job_tracking (\([^;]+);", re.MULTILINE)
# What is empty is indexed in no time by the migration itself.
_FILLED = """
select c.relname from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
 where i.inhparent = to_regclass('queue.job_tracking') and pg_catalog.pg_relation_size(c.oid) > 0
 order by c.relname
"""


def missing(conn: psycopg.Connection, migration: str) -> Iterator[sql.Composed]:
    """The statements that build what the text of a migration needs, one partition each, today's last.

    Whoever runs them sees to the lock and the time that each may take. A column that such an index is of comes by an
    earlier migration.
    """
    for name, definition in _INDEX.findall(migration):
        for (partition,) in conn.execute(_FILLED).fetchall():
            yield sql.SQL("create index if not exists {} on queue.{} {}").format(
                sql.Identifier(f"{partition}_{name}"), sql.Identifier(partition), sql.SQL(definition)
            )
