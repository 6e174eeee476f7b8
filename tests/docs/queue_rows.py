"""What docs/reference/queues.md says of each queue, from its declaration and its payload model."""

from __future__ import annotations

from shared.engine.ports import Limits, Rate
from shared.handlers.loading import payload_model
from shared.handlers.registry import QUEUES, QueueSpec

Row = list[str]


def rows() -> list[Row]:
    """One for each queue: name, class, fields, whether sealed, limits."""
    return [
        [f"`{spec.name}`", spec.klass, _fields(spec), "yes" if spec.sealed else "no", _limits(spec)]
        for spec in QUEUES.values()
    ]


def line(row: Row) -> str:
    return f"| {' | '.join(row)} |"


def _fields(spec: QueueSpec) -> str:
    schema = payload_model(spec.name).model_json_schema(by_alias=True)
    required = schema.get("required", [])
    names = [f"**`{name}`**" if name in required else f"`{name}`" for name in schema.get("properties", {})]
    return ", ".join(names) + (f"; takes no jobs: {spec.closed}" if spec.closed else "")


def _limits(spec: QueueSpec) -> str:
    limits = spec.limits
    whole = _two(limits.rate, limits.concurrency)
    if limits.job_cost > 1:
        whole += f", a job counts {limits.job_cost}"
    if spec.limit_key is None or limits == Limits():
        return whole
    each = spec.limit_key.scope.replace("-reads", ", for reading")
    return f"{whole}; each {each}: {_two(limits.key_rate, limits.key_concurrency)}"


def _two(rate: Rate | None, concurrency: int | None) -> str:
    parts = [f"{rate.limit:,} in {rate.window.total_seconds():g} s"] if rate else []
    parts += [f"{concurrency} at once"] if concurrency else []
    return ", ".join(parts) or "none"
