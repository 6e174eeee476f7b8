"""`python -m shared.reseal`: seals everything with the current key, with the settings of the app in the environment.

Ends with 0 when nothing is left that another key, or none, seals: then ENCRYPTION_KEYS_PREVIOUS can go.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from shared.engine.errors import StoreUnavailableError
from shared.settings_errors import SettingsError


def main(say: Callable[[str], None] = print) -> int:
    """Run it and say what was done; the exit code."""
    from shared import bootstrap

    try:
        report = bootstrap.reseal(say).run()
    except (SettingsError, StoreUnavailableError) as error:
        say(f"stopped: {error}")
        say("What was done stays done; run it again.")
        return 1
    finally:
        bootstrap.stop()
    say(f"{report.sealed} payloads were plain and {report.resealed} were sealed with another key; now they are sealed.")
    if report.busy:
        say(f"{report.busy} were held by others until the end; run it again.")
    for reason, count in report.left.items():
        say(f"{count} stay as they are: {reason}")
    return 0 if report.is_done else 1


if __name__ == "__main__":
    sys.exit(main())
