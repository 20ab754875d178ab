"""What an experiment needs of the machine. A contributor's machine may lack it, CI may not."""

from __future__ import annotations

import os
import shutil
import sys

import pytest


def missing(*programs: str) -> str | None:
    """Why an experiment that needs Linux and these programs cannot run here; None if it can."""
    if sys.platform != "linux":
        return "needs Linux"
    gone = [name for name in programs if shutil.which(name) is None]
    return f"needs {' and '.join(gone)}" if gone else None


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips with the reason; in CI the test runs and fails instead."""
    reason = missing(*programs)
    return pytest.mark.skipif(
        reason is not None and not os.environ.get("CI"), reason=reason or "all is there"
    )
