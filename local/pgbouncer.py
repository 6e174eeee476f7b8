"""PgBouncer in transaction mode before a PostgreSQL server, to see that nothing of ours leans on a session.

The program is the system's (Debian: apt-get install pgbouncer); it refuses root as PostgreSQL does, and then runs
under the same account. TCP on loopback, no passwords. It ends with the process that started it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from local.postgres import account, open_way_to
from local.process import Process, ProcessError, accepts_connections, free_port

START_SECONDS = 15
#: Every transaction takes the next connection, so that what one leaves in its session is never there for the next
#: one. A server that is away is told within seconds, as docs/reference/settings.md asks of a pooler.
CONFIGURATION = """\
[databases]
* = host=127.0.0.1 port={server_port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
server_round_robin = 1
default_pool_size = 20
max_client_conn = 1000
query_wait_timeout = 5
server_login_retry = 1
"""


class PgBouncer:
    """Leads to every database of the server at `server_port`, there always as `user`, whatever name a client gives."""

    def __init__(self, folder: Path, server_port: int, user: str, *, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.user = user
        self._server_port = server_port
        self._process: Process | None = None

    def url(self, database: str) -> str:
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it listens; the server itself may come later. Raises ProcessError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "pgbouncer.ini"
        configuration.write_text(
            CONFIGURATION.format(server_port=self._server_port, user=self.user, port=self.port), "utf-8"
        )
        if os.geteuid() == 0:
            self.folder.chmod(0o755)
            open_way_to(configuration)
        self._process = Process(
            "PgBouncer", [str(find_program()), str(configuration)], log=self.folder / "pgbouncer.log",
            folder=Path("/"), user=account(),
        )  # fmt: skip
        self._process.launch()
        self._process.wait_ready(lambda: accepts_connections(self.port), START_SECONDS)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()


def find_program() -> Path:
    """The program; ProcessError says how to install it."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin")
    if found is None:
        raise ProcessError("PgBouncer is not installed (Debian, Ubuntu: apt-get install pgbouncer)")
    return Path(found)
