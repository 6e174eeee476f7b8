"""A stand-in for Azure's function host, for development only: runs function_app.py as the real one would.

    python -m local.host --port 7071

How far it goes is in docs/reference/local.md. Never deploy it: it serves loopback, and isolates nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvicorn
from azure.storage.queue import QueueClient

from local.host_http import make_app
from local.host_queues import QueueListener, QueueSettings, poison_name
from local.host_timers import Timer
from local.json_log import log_json
from local.worker import AppError, Function, Pool, invocation, load_functions

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Host:
    """One running app. `lease` is the visibility timeout of received messages, in seconds (Azure's host: 600)."""

    def __init__(self, folder: Path, port: int, state: Path, settings: Mapping[str, str], *, lease: int = 600) -> None:
        self.functions = load_functions(folder)
        try:
            extensions = json.loads((folder / "host.json").read_text()).get("extensions", {})
            self._queue_settings = QueueSettings.model_validate(extensions.get("queues", {}))
        except (OSError, ValueError) as error:
            raise AppError(f"host.json: {error}") from error
        self._settings = settings
        self._lease = lease
        self._pool = Pool(int(settings.get("PYTHON_THREADPOOL_THREAD_COUNT", 0)) or None)
        self._completions = ThreadPoolExecutor(4, "settle")
        self._clients: list[QueueClient] = []
        self.listeners = [self._listener(f) for f in self._triggered_by("queueTrigger")]
        self.timers = [
            Timer(f, self._resolve(f.trigger["schedule"]), state / "timers", self._pool.invoke)
            for f in self._triggered_by("timerTrigger")
        ]
        names = {"function": "FUNCTIONS_KEY", "admin": "FUNCTIONS_MASTER_KEY"}
        keys = {level: settings.get(name) or secrets.token_urlsafe(32) for level, name in names.items()}
        prefix = extensions.get("http", {}).get("routePrefix", "api").strip("/")
        app = make_app(self._triggered_by("httpTrigger"), prefix, keys, self._pool.invoke)
        options: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False}
        self._server = uvicorn.Server(uvicorn.Config(app, lifespan="off", timeout_keep_alive=120, **options))
        self._socket = socket.create_server(("127.0.0.1", port), backlog=256)
        # Inherited by its connections, on which asyncio does not set it: 44 ms an answer otherwise.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._socket.getsockname()[1]
        runs: list[Callable[[], None]] = [lambda: self._server.run([self._socket])]
        runs += [listener.run for listener in self.listeners] + [timer.run for timer in self.timers]
        self._threads = [threading.Thread(target=run, daemon=True) for run in runs]
        self._renewal = threading.Thread(target=self._renew_leases, daemon=True)
        self._stopped = threading.Event()

    def start(self) -> None:
        for thread in (*self._threads, self._renewal):
            thread.start()

    def stop(self, grace: float = 30) -> bool:
        """Take nothing new, finish what has begun; False when that took longer than `grace` seconds."""
        deadline = time.monotonic() + grace
        for listener in self.listeners:
            listener.stop()
        for timer in self.timers:
            timer.stopping.set()
        self._server.should_exit = True  # it answers what it has begun
        drained = True
        for thread in self._threads:  # a listener's last batch is in flight when its thread has ended
            thread.join(max(0.0, deadline - time.monotonic()))
            drained &= not thread.is_alive()
        for listener in self.listeners:
            drained &= listener.wait_idle(max(0.0, deadline - time.monotonic()))
        if drained:
            self._stopped.set()
            self._renewal.join()
            self._socket.close()
            self._completions.shutdown()
            self._pool.close()
            for client in self._clients:
                client.close()
        return drained

    def _triggered_by(self, kind: str) -> list[Function]:
        return [function for function in self.functions if function.trigger["type"] == kind]

    def _listener(self, function: Function) -> QueueListener:
        name = self._resolve(function.trigger["queueName"])
        queue, poison = self._queue(function, name), poison_name(name)
        return QueueListener(
            function, queue, self._queue(function, poison) if poison else None, self._queue_settings,
            self._lease, self._pool.invoke, self._completions, self._notify,
        )  # fmt: skip

    def _queue(self, function: Function, name: str) -> QueueClient:
        setting = function.trigger["connection"]
        connection = self._settings.get(f"AzureWebJobs{setting}") or self._settings.get(setting, "")
        try:
            client = QueueClient.from_connection_string(
                connection, name, retry_total=2, initial_backoff=1, increment_base=1
            )
        except ValueError as error:
            raise AppError(f"the setting {setting} is not a storage connection string") from error
        self._clients.append(client)
        return client

    def _resolve(self, text: str) -> str:
        """Replace each %NAME% of a binding by that setting."""
        try:
            return re.sub(r"%([^%]+)%", lambda match: self._settings[match[1]], text)
        except KeyError as error:
            raise AppError(f"a binding says {text}, and there is no setting {error}") from error

    def _notify(self, queue: str) -> None:
        for listener in self.listeners:
            if listener.queue.queue_name == queue:
                listener.wake.set()

    def _renew_leases(self) -> None:
        while not self._stopped.wait(min(self._lease / 10, 5)):
            for delivery in [delivery for listener in self.listeners for delivery in list(listener.in_flight)]:
                delivery.renew(self._lease)


def main() -> int:
    parser = argparse.ArgumentParser("python -m local.host", description="A function host for development.")
    parser.add_argument("--port", type=int, default=7071)
    parser.add_argument("--app", type=Path, default=Path.cwd(), help="folder of function_app.py and host.json")
    parser.add_argument("--state", type=Path, default=Path(".local/host"), help="folder of the timers' status")
    parser.add_argument("--visibility", type=int, default=600, help="seconds that a received message is hidden")
    parser.add_argument("--grace", type=float, default=30, help="seconds to finish what has begun at a stop")
    options = parser.parse_args()
    log_json(lambda: invocation.get({}))
    try:
        host = Host(options.app.resolve(), options.port, options.state, os.environ, lease=options.visibility)
    except (AppError, OSError) as error:
        print(f"The function host cannot start: {error}", file=sys.stderr)
        return 1
    # Blocked and waited for: one that came just before a lock was waited for would be noticed only with the next.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    host.start()
    print(f"A function host for development (not Azure's) on http://127.0.0.1:{host.port} runs:", flush=True)
    for function in host.functions:
        print(f"  {function.name}: {function.trigger}", flush=True)
    signal.sigwait(STOP_SIGNALS)
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: os._exit(1))  # a second one ends it at once
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    drained = host.stop(options.grace)
    logging.getLogger("host").info("host.stopped", extra={"drained": drained})
    os._exit(0 if drained else 1)  # a thread that is still in a function must not hold up the end


if __name__ == "__main__":
    raise SystemExit(main())
