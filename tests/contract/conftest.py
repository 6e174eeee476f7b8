"""Every contract test runs on each kind of store."""

from tests.contract.bench import bench

__all__ = ["bench"]
