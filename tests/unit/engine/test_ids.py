"""Ids made in Python sort as they were made, and are UUIDs of version 7."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from shared.engine.ids import new_id


def test_ids_sort_as_they_were_made_and_tell_the_time() -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(20_000)]
    assert ids == sorted(set(ids))
    assert {one.version for one in ids} == {7} and {one.variant for one in ids} == {"specified in RFC 4122"}
    assert before <= ids[0].int >> 80 <= time.time_ns() // 1_000_000
    assert (ids[-1].int >> 80) <= time.time_ns() // 1_000_000 + 10


def test_threads_make_no_id_twice() -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: [new_id() for _ in range(2000)], range(4)))
    assert len({one for ids in made for one in ids}) == 8000
    assert all(ids == sorted(ids) for ids in made)
