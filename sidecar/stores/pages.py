"""Rows read straight from a file's pages, for when SQL cannot get to them any more.

When the page that leads to others is damaged, SQLite finds none of those behind it, although
they may be well. This reads each page by itself (the file format's leaf pages of tables), so a
damaged page costs the rows that were on it and no others. What table a row belongs to is told
by its shape, see `salvage`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple, TypeAlias

Value: TypeAlias = int | float | str | bytes | None

_TABLE_LEAF, _INDEX_LEAF = 13, 10
_INTEGER_SIZES = (0, 1, 2, 3, 4, 6, 8)


class Row(NamedTuple):
    rowid: int | None
    """None for one of a table WITHOUT ROWID, or of an index."""
    values: tuple[Value, ...]


class _Broken(Exception):
    """These bytes are not what they should be."""


def page_size_of(data: bytes | mmap) -> int:
    """Ours are 4,096 bytes; a file whose header is gone is read as such."""
    size = int.from_bytes(data[16:18], "big")
    size = 65_536 if size == 1 else size
    return size if 512 <= size <= 65_536 and size & (size - 1) == 0 else 4_096


def rows(data: bytes | mmap) -> Iterator[Row]:
    """Every row that any page of the file holds whole."""
    file = _File(data, page_size_of(data))
    for number in range(1, file.count + 1):
        yield from file.rows_on(number)


class _File:
    def __init__(self, data: bytes | mmap, page_size: int) -> None:
        self.data, self.size = data, page_size
        self.count = -(-len(data) // page_size)

    def page(self, number: int) -> bytes:
        if not 0 < number <= self.count:
            raise _Broken
        return self.data[(number - 1) * self.size : number * self.size]

    def rows_on(self, number: int) -> Iterator[Row]:
        page, start = self.page(number), 100 if number == 1 else 0
        if len(page) < start + 8 or page[start] not in (_TABLE_LEAF, _INDEX_LEAF):
            return
        cells = min(int.from_bytes(page[start + 3 : start + 5], "big"), self.size // 4)
        for index in range(cells):
            where = start + 8 + 2 * index
            try:
                yield self._cell(page, int.from_bytes(page[where : where + 2], "big"), page[start])
            except (_Broken, IndexError, struct.error, UnicodeDecodeError):
                continue

    def _cell(self, page: bytes, at: int, kind: int) -> Row:
        if at < 8:
            raise _Broken
        length, at = _varint(page, at)
        rowid: int | None = None
        if kind == _TABLE_LEAF:
            rowid, at = _varint(page, at)
            rowid = rowid - (1 << 64) if rowid >> 63 else rowid
        return Row(rowid, _record(self._payload(page, at, length, kind)))

    def _payload(self, page: bytes, at: int, length: int, kind: int) -> bytes:
        """The record, with what overflows onto further pages."""
        most = self.size - 35 if kind == _TABLE_LEAF else (self.size - 12) * 64 // 255 - 23
        if length <= most:
            return _exactly(page[at : at + length], length)
        if length > len(self.data):
            raise _Broken
        least = (self.size - 12) * 32 // 255 - 23
        local = least + (length - least) % (self.size - 4)
        local = local if local <= most else least
        pieces = [_exactly(page[at : at + local], local)]
        following, left = int.from_bytes(page[at + local : at + local + 4], "big"), length - local
        while left > 0:
            page = self.page(following)
            pieces.append(page[4 : 4 + left])
            following, left = int.from_bytes(page[:4], "big"), left - (self.size - 4)
        return _exactly(b"".join(pieces), length)


def _exactly(data: bytes, length: int) -> bytes:
    if len(data) != length:
        raise _Broken
    return data


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    return value << 8 | data[at + 8], at + 9


def _record(payload: bytes) -> tuple[Value, ...]:
    header, at = _varint(payload, 0)
    if not at <= header <= len(payload):
        raise _Broken
    values, body = [], header
    while at < header:
        kind, at = _varint(payload, at)
        value, body = _value(payload, body, kind)
        values.append(value)
    if body != len(payload):
        raise _Broken
    return tuple(values)


def _value(payload: bytes, at: int, kind: int) -> tuple[Value, int]:
    if kind == 0:
        return None, at
    if kind <= 6:
        end = at + _INTEGER_SIZES[kind]
        return int.from_bytes(_exactly(payload[at:end], end - at), "big", signed=True), end
    if kind == 7:
        return struct.unpack(">d", payload[at : at + 8])[0], at + 8
    if kind in (8, 9):
        return kind - 8, at
    if kind < 12:
        raise _Broken
    end = at + (kind - 12) // 2
    data = _exactly(payload[at:end], end - at)
    return (data.decode() if kind % 2 else data), end
