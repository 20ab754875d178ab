"""Secrets that occur nowhere else, and finding them in anything, however they are written there."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable, Iterator, Mapping
from functools import cache

PIECE = 10
"""A part of a canary this long counts as the canary: nobody leaks by accident in one piece."""
BASE64 = string.ascii_letters + string.digits


def make(chance: random.Random) -> dict[str, str]:
    """The five kinds of secrets that a sidecar may be given."""

    def word(length: int, letters: str = BASE64) -> str:
        return "".join(chance.choices(letters, k=length))

    body = "\n".join(word(64) for _ in range(4))
    return {
        "API key": f"sk-{word(48)}",
        "AWS access key": f"AKIA{word(16, string.ascii_uppercase + string.digits)}",
        "AWS secret key": word(40),
        "URL password": word(32),
        "PEM": f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n",
        "JWT": f"eyJhbGciOiJIUzI1NiJ9.{word(48)}.{word(43)}",
    }


def pieces(value: str) -> Iterator[bytes]:
    """What of a canary is its own: not the frame that every key of its kind has."""
    for line in value.replace(".", "\n").splitlines():
        own = line.removeprefix("sk-").removeprefix("AKIA")
        if not line.startswith(("-----", "eyJ")):
            for at in range(0, len(own) - PIECE + 1, PIECE):
                yield own[at : at + PIECE].encode()


def _base64(piece: bytes) -> list[bytes]:
    """As it looks in the middle of something that is encoded, wherever it begins there."""
    found = []
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + piece)
        # The first and the last characters depend on the neighbours.
        certain = encoded[-(-shift * 8 // 6) : (shift + len(piece)) * 8 // 6]
        found += [certain, certain.translate(bytes.maketrans(b"+/", b"-_"))]
    return found


ENCODINGS: Mapping[str, Callable[[bytes], list[bytes]]] = {
    "plain": lambda piece: [piece],
    "base64": _base64,
    "hex": lambda piece: [piece.hex().encode(), piece.hex().upper().encode()],
    "URL": lambda piece: _each(piece, "%{:02x}", "%{:02X}"),
    # Twice, where JSON is in JSON.
    "JSON": lambda piece: _each(piece, "\\u{:04x}", "\\u{:04X}", "\\\\u{:04x}", "\\\\u{:04X}"),
    "UTF-16LE": lambda piece: [piece.decode().encode("utf-16-le")],
    "UTF-16BE": lambda piece: [piece.decode().encode("utf-16-be")],
}


def _each(piece: bytes, *forms: str) -> list[bytes]:
    return ["".join(map(form.format, piece)).encode() for form in forms]


@cache
def needles(value: str) -> tuple[tuple[str, bytes], ...]:
    return tuple(
        (encoding, needle)
        for piece in pieces(value)
        for encoding, encode in ENCODINGS.items()
        for needle in encode(piece)
    )


def find(data: bytes, canaries: Mapping[str, str]) -> set[tuple[str, str]]:
    """Which canaries are in there, and in which encodings."""
    return {
        (name, encoding)
        for name, value in canaries.items()
        for encoding, needle in needles(value)
        if needle in data
    }


def written(value: str, *, text: bool = False) -> list[bytes]:
    """The canary in every way that it is looked for; as `text` without those that no text has."""
    whole = value.encode()
    ways = [
        whole,
        *(base64.b64encode(b"x" * shift + whole) for shift in range(3)),
        whole.hex().encode(),
        whole.hex().upper().encode(),
        *_each(whole, "%{:02x}", "%{:02X}", "\\u{:04x}", "\\u{:04X}"),
    ]
    return ways if text else [*ways, value.encode("utf-16-le"), value.encode("utf-16-be")]
