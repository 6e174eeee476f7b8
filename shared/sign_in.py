"""`python -m shared.sign_in [--account NAME] [--browser]`: signs a service account in, with the app's settings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from shared.engine.errors import StoreUnavailableError
from shared.settings_errors import SettingsError


def main(arguments: Sequence[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="sign-in", description="Signs a service account in, once.")
    parser.add_argument("--account", metavar="NAME", help="which of GRAPH_SERVICE_ACCOUNT; the first one by default")
    parser.add_argument("--browser", action="store_true", help="in a browser on this machine, without a code")
    options = parser.parse_args(arguments)
    from shared import bootstrap
    from shared.graph.errors import TokenFailure
    from shared.graph.sign_in import with_browser, with_code

    try:
        name = bootstrap.sign_in(say, options.account, with_browser if options.browser else with_code)
    except (SettingsError, StoreUnavailableError, TokenFailure) as error:
        say(f"nobody was signed in: {error}")
        return 1
    finally:
        bootstrap.stop()
    say(f"{name} is signed in; jobs that waited for it go on.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
