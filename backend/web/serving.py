"""`serve`: gunicorn with the settings' address and threads, in one process.

One process is enough: /predict alone computes, and answers to everything else are read from files.
It also keeps one copy of each loaded model, and counts requests in one place.
"""

from __future__ import annotations

import threading
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

from backend.settings import Settings
from backend.web.app import create_app


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM. Raises SettingsError when it would be open to strangers."""
    settings.check_listening()
    _Server(settings).run()


def bind_address(settings: Settings) -> str:
    """What gunicorn listens on."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.port}"


class _Server(BaseApplication):
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": bind_address(self._settings),
            "worker_class": "gthread",
            "workers": 1,
            "threads": self._settings.threads,
            "timeout": 120,  # Label Studio waits for /predict for 100 s
            "keepalive": 5,
            "graceful_timeout": 10,
            "proc_name": "after-web",
            "loglevel": self._settings.log_level,
            "control_socket_disable": True,
            "post_worker_init": _warm_up,
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Flask:
        return create_app(self._settings)


def _warm_up(_worker: Any) -> None:
    """Import in the background what the first look at the status page would wait for."""

    def load() -> None:
        from backend.worker import queueing  # noqa: F401

    threading.Thread(target=load, daemon=True).start()
