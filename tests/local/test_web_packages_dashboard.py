"""The dashboard's npm packages: only the pinned ones are taken."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from local import web_packages
from local.process import ProcessError
from shared.web import files as web


def tarball(folder: Path) -> Path:
    path = folder / "p-1.0.0.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("package/dist/a.js", "package/../../evil.js"):
            member = tarfile.TarInfo(name)
            member.size = 2
            archive.addfile(member, io.BytesIO(b"//"))
    return path


def digest(path: Path) -> str:
    return base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def test_another_tarball_than_the_pinned_one_never_gets_into_the_dashboard(tmp_path: Path) -> None:
    path = tarball(tmp_path)
    package = web_packages.Package("p", "1.0.0", digest(path), (("dist/a.js", "a.js"),))
    folder = tmp_path / "vendor"
    folder.mkdir()
    with pytest.raises(ProcessError, match=r"p 1\.0\.0 from npm is not the package that was pinned"):
        web_packages.unpack(replace(package, sha512="A" * 88), path, folder)
    assert [*folder.iterdir()] == []
    web_packages.unpack(package, path, folder)
    assert [one.name for one in folder.iterdir()] == ["a.js"]


def test_every_file_that_the_dashboard_needs_is_in_a_pinned_package() -> None:
    names = {f"vendor/{here}" for package in web_packages.PACKAGES for _, here in package.files}
    assert set(web.VENDOR) <= names
    assert all(any(here.endswith("LICENSE.txt") for _, here in package.files) for package in web_packages.PACKAGES)


def test_packages_of_another_version_are_not_taken_for_the_dashboards(tmp_path: Path) -> None:
    assert not web_packages.is_installed(tmp_path)
    (tmp_path / web_packages.STAMP).write_text("htm@0.0.0 sha512-x\n")
    assert not web_packages.is_installed(tmp_path)
