"""`./dev` for a stack on another data folder: the same commands by the same code. Arguments: folder, command …"""

from __future__ import annotations

import sys
from pathlib import Path

from local import cli

if __name__ == "__main__":
    cli.HOME = Path(sys.argv.pop(1))
    raise SystemExit(cli.main())
