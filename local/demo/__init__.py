"""`./dev demo`: the main scenario on real servers, checked line by line."""

from local.demo.play import run

__all__ = ["run"]
