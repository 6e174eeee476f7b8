"""The files of the dashboard, as a browser gets them. Names come from what is there, never from a request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PAGE = "index.html"
#: Made by `./dev setup` out of pinned npm packages; the page says so when they are missing.
VENDOR = ("vendor/preact.js", "vendor/uplot.js", "vendor/uplot.css")
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class File:
    """`etag` is quoted, as a header has it."""

    body: bytes
    media: str
    etag: str


@dataclass(frozen=True, slots=True)
class Files:
    """All files by their names below the folder. `version` changes with any of them, and stands in their addresses."""

    files: Mapping[str, File]
    version: str
    missing: tuple[str, ...]

    def page(self, prefix: str) -> bytes:
        """The page, its links below `prefix`; where a packed part lacks, it says so and loads nothing."""
        text = self.files[PAGE].body.decode().replace("{files}", f"{prefix}{self.version}")
        return text.replace("{missing}", ", ".join(self.missing)).encode()


def read(folder: Path = FOLDER) -> Files:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in TYPES and path.is_file():
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found[path.relative_to(folder).as_posix()] = File(body, TYPES[path.suffix], etag)
    every = "".join(f"{name} {file.etag}\n" for name, file in found.items())
    version = hashlib.sha256(every.encode()).hexdigest()[:16]
    return Files(found, version, tuple(name for name in VENDOR if name not in found))


@cache
def files() -> Files:
    """Those of this process: read when somebody asks for the first time."""
    return read()
