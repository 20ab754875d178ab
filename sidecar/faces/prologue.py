"""The start of a serving process, in the standard library alone.

Answers `initialize` with what is known without looking at anything, while the rest of the
product is not even imported, and owns both streams until it hands them over. It must stay
free of everything that takes time to import.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from .. import __version__
from ..wire import constants as wire
from ..wire.frames import Frame, FrameError, FrameParser, frame, nesting_depth_exceeds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Literal, NoReturn
