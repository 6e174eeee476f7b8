"""Run the fake Graph: python -m local.fake_graph --port P --cert FILE --key FILE [--schemas PATH]."""

from __future__ import annotations

import argparse
from pathlib import Path

from local.fake_graph.app import FakeGraphApp
from local.fake_graph.checks import Checks
from local.fake_graph.server import serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.fake_graph", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cert", type=Path, required=True, help="certificate chain for 127.0.0.1, PEM")
    parser.add_argument("--key", type=Path, required=True, help="its private key, PEM")
    parser.add_argument("--schemas", type=Path, help="what python -m local.fake_graph.schemas has made")
    options = parser.parse_args()
    app = FakeGraphApp(f"https://127.0.0.1:{options.port}", Checks(options.schemas))
    serve(app, options.port, options.cert, options.key)


if __name__ == "__main__":
    main()
