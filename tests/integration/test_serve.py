"""The service as it is started: gunicorn, a burst of events, refusals."""

from __future__ import annotations

from backend.store.projects import Projects
from benchmarks.webhooks import PROJECT, _request, burning, burst, health, serving


def test_a_burst_of_events_is_acknowledged_and_counted(tmp_path):
    with serving(tmp_path) as (settings, port):
        took = burst(port, 1000, 8)
        assert took.succeeded == 1000
        assert Projects(settings).get(PROJECT).events == 1000


def test_health_is_answered_while_the_cpu_is_busy(tmp_path):
    with serving(tmp_path) as (_, port), burning(2):
        assert health(port, 100, "busy").succeeded == 100


def test_what_is_no_http_does_not_stop_the_service(tmp_path):
    import socket

    with serving(tmp_path) as (_, port):
        for sent in (
            b"\x16\x03\x01\x02\x00",
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /webhook HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
            b"G" * 100_000,
        ):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                try:
                    while connection.recv(4096):
                        pass
                except ConnectionError:
                    pass
        assert _request(port, "GET", "/health") == 200
