"""What is wrong with the settings. Apart from settings.py, so that triggers can catch it without loading pydantic."""

from __future__ import annotations

from collections.abc import Sequence

from shared.engine.errors import Problem


class SettingsError(Exception):
    """Settings are missing or wrong; `problems` names each one and its remedy, never a value."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))
        self.problems = tuple(problems)
