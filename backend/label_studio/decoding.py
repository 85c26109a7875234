"""Answers of other servers, decompressed no further than somebody is willing to read.

httpx decompresses whatever `Content-Encoding` names, as often as it is named there, and a piece of
the answer at a time: `gzip, gzip` makes four gigabytes of 3.5 KB in one of them. Here one gzip is
taken, in small pieces; every other encoding is refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx

PIECE = 64 * 1024  # bytes decompressed at once
GZIP = 16 + zlib.MAX_WBITS
ACCEPTED = {"Accept-Encoding": "gzip"}  # the headers of such a client


def bounded(max_bytes: int) -> dict[str, list[Callable[..., Any]]]:
    """The event_hooks of an httpx.Client that reads no more than this of an answer.

    Before as after decompression. What is larger, damaged or encoded in another way than by one
    gzip raises httpx.DecodingError.
    """

    def limit(response: httpx.Response) -> None:
        encoding = response.headers.pop("content-encoding", "identity").strip().lower()
        if encoding not in ("gzip", "x-gzip", "identity"):
            raise httpx.DecodingError(f"it is encoded as {encoding[:100]!r}, which is not read")
        if encoding != "identity":
            response.headers.pop("content-length", None)  # of what was compressed
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = _Pieces(response.stream, encoding, max_bytes)

    return {"response": [limit]}


class _Pieces(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, encoding: str, max_bytes: int) -> None:
        self._stream = stream
        self._encoding = encoding
        self._max_bytes = max_bytes

    def __iter__(self) -> Iterator[bytes]:
        pieces: Iterator[bytes] = _limited(iter(self._stream), self._max_bytes)
        if self._encoding != "identity":
            pieces = _limited(gunzip(pieces), self._max_bytes)
        return pieces

    def close(self) -> None:
        self._stream.close()


def gunzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The content of a gzip file, of one or several members, in pieces of at most PIECE bytes.

    Raises httpx.DecodingError where it is none, or ends early.
    """
    decoder = zlib.decompressobj(GZIP)
    begun = False  # a member that has not ended
    for piece in pieces:
        while piece:
            if decoder.eof:
                decoder = zlib.decompressobj(GZIP)
            try:
                found = decoder.decompress(piece, PIECE)
            except zlib.error as error:
                raise httpx.DecodingError(f"it is no gzip: {error}") from error
            begun = not decoder.eof
            if found:
                yield found
            piece = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
    while begun and (found := decoder.decompress(b"", PIECE)):  # held back by the limit
        yield found
        begun = not decoder.eof
    if begun and not decoder.eof:
        raise httpx.DecodingError("it breaks off")


def _limited(pieces: Iterator[bytes], max_bytes: int) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > max_bytes:
            raise httpx.DecodingError(f"it is larger than {max_bytes} bytes")
        yield piece
