"""The backend's web service inside the test's process, for tests of connecting."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from werkzeug.serving import make_server

from backend.settings import Settings
from backend.web.app import create_app


@contextmanager
def web_service(data: Path, **values: Any) -> Iterator[Settings]:
    """Settings whose web service answers."""
    values.setdefault("port", free_port())
    settings = Settings(data=data, _env_file=None, **values)  # type: ignore[call-arg]
    data.mkdir(parents=True, exist_ok=True)
    server = make_server(settings.host, settings.port, create_app(settings), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield settings
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
