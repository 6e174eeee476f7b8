"""Answers that must not wait for the worker's threads.

Azure's worker runs every `def` function on one pool, and two busy queues fill it: Graph would then wait for its
answer as long as the jobs take, and counts more than three seconds as a failure. An `async def` function runs on the
worker's event loop at once; what it has to wait for, it waits for on these few threads of its own. Deliveries have
theirs to themselves: whoever asks about health, or for a page, may have to wait for a database that hangs.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Literal, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Who = Literal["deliveries", "people"]
#: For each.
THREADS = 16


async def run_apart(who: Who, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call on a thread that neither a job nor the others can hold."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(
        _threads(who), partial(context.run, partial(call, *args, **kwargs))
    )


@cache
def _threads(who: Who) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, who)
