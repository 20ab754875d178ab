"""Names that mean something else to Windows than they say. Pure, so that they are tested anywhere.

Source: "Naming Files, Paths, and Namespaces" of the Windows documentation.
"""

from __future__ import annotations

import re

_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])(?:\s*[.:].*|\s*)",
    re.IGNORECASE,
)
_SHORT = re.compile(r"[^.~]{1,6}~\d+(?:\.[^.]{0,3})?", re.IGNORECASE)


def refusal(name: str, platform: str) -> str | None:
    """Why a path, given by an agent, is not used; None where nothing is wrong with it. Paths
    below a folder only: what names a drive, a server or a device is refused by its form."""
    if platform != "win32":
        return None
    path = name.replace("/", "\\")
    if path.startswith("\\\\"):
        return "It names a server or a device."
    drive, colon, rest = path.partition(":")
    if colon and len(drive) == 1 and drive.isalpha():
        if not rest.startswith("\\"):
            return "It depends on the current folder of a drive."
        path = rest
    return next(filter(None, map(_of_part, path.split("\\"))), None)


def _of_part(part: str) -> str | None:
    if part in ("", ".", ".."):
        return None
    if any(char < " " or char in '<>"|?*' for char in part):
        return f"{part[:80]!r} has a character that no file name has."
    if ":" in part:
        return f"{part[:80]!r} names a stream of a file."
    if part[-1] in ". ":
        return f"{part[:80]!r} ends in a dot or a blank, which is left out."
    if _DEVICE.fullmatch(part):
        return f"{part[:80]!r} is a device."
    if _SHORT.fullmatch(part):
        return f"{part[:80]!r} may be the short name of another file."
    return None
