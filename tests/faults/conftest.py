"""The fast versions of the experiments share what the tests with a real process have."""

from tests.e2e.conftest import spawn, store

__all__ = ["spawn", "store"]
