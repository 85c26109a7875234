"""A time limit of a whole request, whatever the server sends and how slowly.

httpx limits the wait for each piece. A server that sends a byte of its headers now and then keeps a
thread for ever; here its connection is cut when the time is up.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any


class Deadline:
    """Cuts the connections that are made under it; as a context manager it ends with the block."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds
        self._mutex = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._mutex:
            for copy in self._sockets:
                copy.close()
            self._sockets.clear()

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._at

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """The `trace` extension of a request: learns of its connection."""
        if event == "connection.connect_tcp.complete":
            # A copy: the original becomes part of another object where TLS begins.
            copy = info["return_value"].get_extra_info("socket").dup()
            with self._mutex:
                self._sockets.append(copy)
            if self.passed:
                self._cut()

    def _cut(self) -> None:
        with self._mutex:
            for copy in self._sockets:
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    copy.shutdown(socket.SHUT_RDWR)
