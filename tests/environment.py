"""Virtual environments of their own, for tools whose dependencies are not ours to pin anything to."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parents[1] / ".local"


def own_environment(name: str, requirements: Path) -> Path:
    """The interpreter of an environment with these packages; made once, and again when they change."""
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    folder = HOME / name
    python, mark = folder / "bin" / "python", folder / "installed"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists() or mark.read_text() != wanted:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            install = [str(python), "-m", "pip", "install", "-q", "-r", str(requirements)]
            subprocess.run(install, check=True, capture_output=True, text=True)
            mark.write_text(wanted)
    return python
