"""From an exception to a Failure: pure, and by class only, never by message text."""

from __future__ import annotations

from shared.engine.errors import JobError
from shared.engine.job import ErrorClass, Failure
from shared.redaction import without_secrets

LONGEST_MESSAGE = 2000


def classify(error: BaseException) -> Failure:
    """The failure that this exception stands for. Whatever is not a JobError counts as unknown."""
    if isinstance(error, JobError):
        return Failure(error.error_class, _text(error), error.retry_after, dict(error.details), error.is_final)
    return Failure(
        ErrorClass.UNKNOWN,
        f"{type(error).__name__}: {_text(error)}",
        details={"exception": f"{type(error).__module__}.{type(error).__qualname__}"},
    )


def _text(error: BaseException) -> str:
    """Secrets go before it is cut: half of one is still one."""
    return without_secrets(str(error))[:LONGEST_MESSAGE] or type(error).__name__
