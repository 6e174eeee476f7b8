"""Stands between a client and Azurite: carries puts out, and loses the answers of some."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from local.azurite import Azurite


class Lossy(ThreadingHTTPServer):
    """`to_lose` answers of puts are still to be lost; `lost` were."""

    def __init__(self, target_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target_port = target_port
        self.to_lose = self.lost = 0

    def lose(self) -> bool:
        """Whether the answer of this put gets lost."""
        if self.to_lose == 0:
            return False
        self.to_lose -= 1
        self.lost += 1
        return True

    def connection_string(self, azurite: Azurite) -> str:
        return azurite.connection_string.replace(f":{azurite.port}/", f":{self.server_port}/")


class _Handler(BaseHTTPRequestHandler):
    server: Lossy

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection("127.0.0.1", self.server.target_port, timeout=10)
        connection.request("POST", self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self.close_connection = True
        if self.server.lose():
            return
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "keep-alive"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def lossy(azurite: Azurite) -> Iterator[Lossy]:
    with Lossy(azurite.port) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
