"""Compressed answers: read as they were, in small pieces, and no further than the limit."""

from __future__ import annotations

import gzip
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.label_studio import decoding
from backend.label_studio.connection import LabelStudioError
from backend.label_studio.predictions import LabelStudio

BOMB = gzip.compress(bytes(200 * 2**20), 9)  # 200 KB that become 200 MiB
NESTED = gzip.compress(BOMB, 9)


class _Server(BaseHTTPRequestHandler):
    """Answers /PATH with what answers[PATH] says: (Content-Encoding, body)."""

    answers: dict[str, tuple[str, bytes]]

    def do_GET(self) -> None:
        encoding, body = self.answers[self.path.strip("/").split("/")[-1].split("?")[0]]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    answers = {
        "plain": ("identity", b"[1]"),
        "one": ("gzip", gzip.compress(b"[1]")),
        "bomb": ("gzip", BOMB),
        "nested": ("gzip, gzip", NESTED),
        "brotli": ("br", b"?"),
        "broken": ("gzip", gzip.compress(b"[1]")[:-9]),
        "none": ("gzip", b"no gzip at all"),
    }
    handler = type("Handler", (_Server,), {"answers": answers})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


def read(url: str, max_bytes: int = 2**20) -> bytes:
    with httpx.Client(
        headers=decoding.ACCEPTED, event_hooks=decoding.bounded(max_bytes), trust_env=False
    ) as client:
        return client.get(url).content


@pytest.mark.parametrize("name", ["plain", "one"])
def test_an_answer_is_read(server, name):
    assert read(f"{server}/{name}") == b"[1]"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bomb", "larger than 1048576 bytes"),
        ("nested", "'gzip, gzip'"),
        ("brotli", "'br'"),
        ("broken", "breaks off"),
        ("none", "no gzip"),
    ],
)
def test_what_is_not_read_says_why(server, name, said):
    with pytest.raises(httpx.DecodingError, match=said):
        read(f"{server}/{name}")


@pytest.mark.parametrize("name", ["bomb", "nested"])
def test_a_bomb_takes_little_memory(server, name):
    tracemalloc.start()
    with pytest.raises(httpx.DecodingError):
        read(f"{server}/{name}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


@pytest.mark.parametrize("name", ["nested", "none"])
def test_label_studios_answers_are_bounded_too(server, name):
    with pytest.raises(LabelStudioError, match="asked to read it, the answer is not read"):
        LabelStudio(server, "k" * 40).request("read it", "GET", name)


@given(st.lists(st.binary(max_size=300)), st.integers(1, 50))
def test_members_in_any_pieces_give_what_was_compressed(members, size):
    packed = b"".join(gzip.compress(member) for member in members)
    pieces = (packed[i : i + size] for i in range(0, len(packed), size))
    assert b"".join(decoding.gunzip(pieces)) == b"".join(members)


def test_no_piece_is_large():
    assert max(map(len, decoding.gunzip(iter([BOMB])))) <= decoding.PIECE
