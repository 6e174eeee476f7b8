"""The HTTPS server of the fake Graph: uvicorn, with a way to cut a connection without an answer."""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from local.fake_graph.app import ABORT, FakeGraphApp


class CuttingProtocol(HttpToolsProtocol):
    """Gives the app the means to abort the transport, for lost answers and resets."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {ABORT: self.transport.abort}
        self.scope["extensions"] = extensions

    def shutdown(self) -> None:
        """At the end, idle connections go at once: TLS's polite close waits for the client."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:
            super().shutdown()


def serve(app: FakeGraphApp, port: int, cert: Path, key: Path) -> None:
    """Serve on loopback until SIGTERM or SIGINT."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http=CuttingProtocol,
        loop="asyncio",
        ws="none",
        lifespan="on",
        ssl_certfile=str(cert),
        ssl_keyfile=str(key),
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    asyncio.run(uvicorn.Server(config).serve())
