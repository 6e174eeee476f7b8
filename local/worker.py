"""A stand-in for Azure's Python worker: loads function_app.py, and runs its functions on one pool of threads."""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import inspect
import json
import logging
import os
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import azure.functions as func

TRIGGERS = {"queueTrigger", "timerTrigger", "httpTrigger"}
logger = logging.getLogger("host")
#: The running function and its invocation id, for the log lines that it writes.
invocation: contextvars.ContextVar[dict[str, str]] = contextvars.ContextVar("invocation")


class AppError(Exception):
    """The app cannot be run; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Function:
    """One function; `trigger` is its trigger binding as azure-functions reports it to the host."""

    name: str
    call: Callable[..., Any]
    trigger: Mapping[str, Any]


def load_functions(folder: Path) -> list[Function]:
    """Import function_app.py and index it. In Azure, an app that does not load has no functions, without a word;
    here it is an AppError."""
    file = folder / "function_app.py"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last, as in Azure: an installed package of the same name wins
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        apps = {id(v): v for v in vars(module).values() if isinstance(v, func.FunctionApp)}
        if len(apps) != 1:
            raise AppError(f"it has {len(apps)} FunctionApp objects at its top level, not one")
        return [_index(function) for app in apps.values() for function in app.get_functions()]
    except Exception as error:
        raise AppError(f"{file} cannot be loaded: {type(error).__name__}: {error}") from error


def _index(function: Any) -> Function:
    name, call = function.get_function_name(), function.get_user_function()
    bindings = [json.loads(raw) for raw in function.get_raw_bindings()]
    triggers = [binding for binding in bindings if binding["type"] in TRIGGERS]
    others = {binding["type"] for binding in bindings if binding not in triggers} - {"http"}
    if others or len(triggers) != 1:
        raise AppError(f"{name}: this host knows {sorted(TRIGGERS)}, one a function, not {sorted(others)}")
    parameters = set(inspect.signature(call).parameters)
    if parameters - {"context"} != {triggers[0]["name"]}:
        raise AppError(f"{name}: the parameters {sorted(parameters)} are not those of its bindings")
    return Function(name, call, triggers[0])


class Pool:
    """Runs functions: `def` on a pool of as many threads as the worker's, `async def` on one event loop."""

    def __init__(self, threads: int | None) -> None:
        self._threads = ThreadPoolExecutor(threads or min(32, (os.cpu_count() or 1) + 4), "function")
        self._loop = asyncio.new_event_loop()
        self._loop_thread = threading.Thread(target=self._run_loop, daemon=True)
        self._loop_thread.start()

    def invoke(self, function: Function, value: Any) -> Future[Any]:
        """Run it; the future has its result, or its exception, which is logged."""
        arguments, details = {function.trigger["name"]: value}, {"function": function.name}
        details["invocation"] = number = str(uuid.uuid4())
        if "context" in inspect.signature(function.call).parameters:
            # The attributes of func.Context, which is abstract.
            arguments["context"] = SimpleNamespace(
                invocation_id=number, function_name=function.name, function_directory=os.getcwd(),
                trace_context=None, retry_context=None, thread_local_storage=threading.local(),
            )  # fmt: skip
        context = contextvars.copy_context()
        context.run(invocation.set, details)
        future: Future[Any]
        if inspect.iscoroutinefunction(function.call):
            future = context.run(asyncio.run_coroutine_threadsafe, function.call(**arguments), self._loop)
        else:
            future = self._threads.submit(lambda: context.run(function.call, **arguments))

        def log(done: Future[Any]) -> None:
            if error := done.exception():
                logger.error("function.failed", extra=details, exc_info=error)
            else:
                logger.info("function.ended", extra=details)

        future.add_done_callback(log)
        return future

    def close(self) -> None:
        self._threads.shutdown(wait=False)
        if self._loop_thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop_thread.join()

    def _run_loop(self) -> None:
        self._loop.run_forever()
        self._loop.close()
