"""Claims cost the same beside any backlog: counted in pages read, which a busy machine does not change."""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg
import pytest

QUEUE = "teams-outbound"
OTHER = "outlook-outbound"
BATCH = 10
CYCLES = 100
#: The first calls of a session fill its caches.
WARM_UP = 3
LANE = f"'{QUEUE}:order:' || "


@pytest.fixture
def jobs(sql: psycopg.Connection) -> Callable[..., None]:
    """Ready jobs, each a microsecond after the one before; `lane` is an expression of their number `n`.

    No autovacuum comes in between: after it, at a time of its own, statements are planned anew and read the catalogue.
    """
    for (table,) in sql.execute(
        "select oid::regclass::text from pg_class where relnamespace = 'queue'::regnamespace and relkind = 'r'"
    ).fetchall():
        sql.execute(f"alter table {table} set (autovacuum_enabled = off)".encode())

    def insert(count: int, queue: str = QUEUE, lane: str = "null") -> None:
        sql.execute(
            "insert into queue.job (id, queue, priority, run_at, enqueued_at, payload, lane, lane_rule)"
            f" select queue.new_id(), '{queue}', 5, now() - interval '1 hour' + n * interval '1 microsecond', now(),"
            f" '{{}}', l, case when l is not null then 'order' end"
            f" from generate_series(0, {count - 1}) n, lateral (select {lane} as l) lanes".encode()
        )

    return insert


def pages(sql: psycopg.Connection, statement: str, *arguments: object) -> int:
    """Pages that a statement reads, those of the functions that it calls too."""
    row = sql.execute(f"explain (analyze, buffers, format json) {statement}".encode(), arguments).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def claim(sql: psycopg.Connection, batch: int) -> int:
    return pages(sql, "select * from queue.take(%s, %s, 'w', interval '1 minute')", QUEUE, batch)


def cycle(sql: psycopg.Connection, batch: int = BATCH) -> tuple[int, int]:
    """Claim and settle a batch; pages that the claim read, and jobs."""
    read = claim(sql, batch)
    return read, settle(sql)


def settle(sql: psycopg.Connection) -> int:
    rows = sql.execute("select id, lease_token from queue.job where lease_token is not null").fetchall()
    done = [{"id": str(job), "token": str(token), "outcome": "completed"} for job, token in rows]
    sql.execute("select * from queue.end_attempts(%s)", (json.dumps(done),))
    return len(rows)


def costs(sql: psycopg.Connection) -> tuple[int, int]:
    """Pages of a hundred claims: the middle, and the second worst. Each finds a whole batch.

    What went before is cleaned up, so that each hundred walks over its own dead entries only.
    """
    sql.execute("vacuum queue.job")
    for _ in range(WARM_UP):
        cycle(sql)
    found = [cycle(sql) for _ in range(CYCLES)]
    assert {count for _, count in found} == {BATCH}
    read = sorted(pages for pages, _ in found)
    return read[CYCLES // 2], read[-2]


def test_a_hundred_thousand_jobs_of_a_paused_queue_cost_a_claim_nothing(
    sql: psycopg.Connection, jobs: Callable[..., None]
) -> None:
    jobs(1_100)
    alone, alone_p99 = costs(sql)
    jobs(100_000, OTHER)
    sql.execute("select queue.pause(%s)", (OTHER,))
    jobs(1_100)
    middle, p99 = costs(sql)
    # The indexes have a level more, for each of the ten jobs; nothing else grows.
    assert middle <= 1.5 * alone and p99 <= 1.5 * alone_p99


def test_a_hundred_thousand_keys_cost_a_claim_what_a_thousand_cost(
    sql: psycopg.Connection, jobs: Callable[..., None]
) -> None:
    jobs(1_100, lane=f"{LANE} 'few-' || n")
    few, few_p99 = costs(sql)
    jobs(100_000, lane=f"{LANE} 'many-' || n")
    middle, p99 = costs(sql)
    assert middle <= 1.5 * few and p99 <= 1.5 * few_p99 + 20


@pytest.mark.parametrize(
    ("key", "most"),
    [
        ("n % 1000", 1_000),
        # All hundred of a key stand one after the other: a claim moves out of its way those behind the ten that it
        # takes, nearly a thousand, once and for all.
        ("n / 100", 15_000),
    ],
    ids=["keys in turn", "key after key"],
)
def test_a_thousand_keys_with_a_hundred_jobs_each_keep_claims_short(
    sql: psycopg.Connection, jobs: Callable[..., None], key: str, most: int
) -> None:
    jobs(100_000, lane=f"{LANE} {key}")
    middle, p99 = costs(sql)
    assert middle <= 1_000 and p99 <= most


def test_beside_an_old_snapshot_a_claim_reads_less_than_a_page_a_job_and_recovers_after_it(
    sql: psycopg.Connection, jobs: Callable[..., None], direct_url: str
) -> None:
    """Nobody may clean up what the snapshot can still see, so each claim walks over every job that went since."""
    total = 10_000
    jobs(total)
    for _ in range(WARM_UP):
        cycle(sql, 1)
    with psycopg.connect(direct_url) as old:
        old.execute("set transaction isolation level repeatable read")
        old.execute("select count(*) from queue.job")
        while settled := cycle(sql, 500)[1]:
            assert settled <= 500
        jobs(10)
        beside, count = cycle(sql, 1)
        assert count == 1 and beside <= total
    sql.execute("vacuum queue.job")
    cycle(sql, 1)  # goes once over what the vacuum left
    assert cycle(sql, 1)[0] <= 100
