"""gzip streams, read to their end: the CRC is checked and what they may grow to is bounded.

nibabel stops before a stream's trailer and so never sees a wrong CRC. ISA-L does the work where it
has a wheel; the standard library does the same, more slowly, where it has none.
"""

from __future__ import annotations

import gzip
import zlib
from typing import Any

compress: Any = gzip.compress
inflater: Any = zlib.decompressobj
try:
    from isal import igzip, isal_zlib

    compress, inflater = igzip.compress, isal_zlib.decompressobj
    DEFLATE_ERRORS: Any = (zlib.error, isal_zlib.error)
except ImportError:  # a machine without a wheel of isal: the same stream, checked as strictly
    DEFLATE_ERRORS = (zlib.error,)

MAGIC = b"\x1f\x8b"
GZIP_BITS = 31  # zlib's number for a gzip header, a window of 32 KiB and the CRC
LEVEL = 1
PIECE = 1 << 18  # bytes of a later member that are looked at together


class StreamError(ValueError):
    """A stream that is not whole; the text says in what way."""


class OversizedStreamError(StreamError):
    """A stream that goes on beyond what was declared."""


def is_gzip(raw: bytes) -> bool:
    return raw[:2] == MAGIC


def deflate(payload: bytes) -> bytes:
    """One gzip member without name and time: the same payload gives the same bytes.

    That holds on one machine. ISA-L has code for several kinds of processor, and zlib has forks, so
    another kind of machine may compress the same payload to other bytes.
    """
    return bytes(compress(payload, compresslevel=LEVEL, mtime=0))


def inflate(raw: bytes, *, largest: int) -> bytes:
    """Every member of a gzip stream, to the end, with CRC and length checked.

    Zeros behind the last member are padding of tapes and allowed, as in the standard library.

    Args:
        largest: bytes that may come out; the work stops at one byte more.

    Raises:
        StreamError: truncated, a wrong CRC, or something behind the last member.
        OversizedStreamError: more than ``largest`` bytes.
    """
    view, parts = memoryview(raw), []
    offset, room = 0, largest
    while offset < len(raw):
        if raw[offset : offset + 2] != MAGIC:
            if any(view[offset:]):
                raise StreamError(f"{len(raw) - offset} bytes that are no gzip at its end")
            break
        member = inflater(wbits=GZIP_BITS)
        # A file is one member or thousands (BGZF), of which the rest must not be copied each time.
        step = PIECE if offset else len(raw)
        while not member.eof:
            piece = view[offset : offset + step]
            if not piece:
                raise StreamError("the stream ends before its end-of-stream marker")
            part = _inflate_piece(member, piece, room + 1)
            parts.append(part)
            offset, room = offset + len(piece), room - len(part)
            if room < 0:
                raise OversizedStreamError(f"the stream goes on beyond {largest} bytes")
        offset -= len(member.unused_data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def inflate_head(raw: bytes, n: int) -> bytes:
    """The first ``n`` bytes of a gzip stream, or fewer where it has no more.

    Raises:
        StreamError: damaged before that.
    """
    head = _inflate_piece(inflater(wbits=GZIP_BITS), raw[:PIECE], n)
    if len(head) < n and len(raw) > PIECE:
        head = _inflate_piece(inflater(wbits=GZIP_BITS), raw, n)
    return head


def _inflate_piece(member: Any, piece: bytes | memoryview, most: int) -> bytes:
    try:
        return bytes(member.decompress(piece, most))
    except DEFLATE_ERRORS as error:
        raise StreamError(str(error)) from error
