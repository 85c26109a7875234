"""Programs that are started together and stopped together."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.cli.children import Children

ROOT = Path(__file__).resolve().parents[2]
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(60)"
WITH_CHILD = (
    "import subprocess, sys, time; "
    "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)"
    "; time.sleep(60)"
)


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    with Children(tmp_path / "logs", grace_s=0.5) as started:
        yield started


def python(program: str) -> list[str]:
    return [sys.executable, "-u", "-c", program]


def soon(what: Callable[[], object], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.02)
    return False


def alive(pid: int) -> bool:
    """Zombies don't count: in a container nobody may be there to collect them."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


def test_output_is_in_a_log_of_its_own(children: Children, tmp_path: Path) -> None:
    child = children.start("A name", python("print('hello')"), os.environ)
    child.process.wait()
    assert (tmp_path / "logs" / "a-name.log").read_text(encoding="utf-8") == "hello\n"


def test_a_program_that_ends_is_found(children: Children) -> None:
    children.start("stays", python("import time; time.sleep(60)"), os.environ)
    child = children.start("goes", python("print('why'); raise SystemExit(3)"), os.environ)
    assert soon(children.ended)
    assert children.ended() is child
    assert (child.how_it_ended(), child.tail()) == ("exit status 3", "why")


def test_tail_is_the_end_of_a_long_log(children: Children) -> None:
    child = children.start("long", python("for i in range(9999): print(i)"), os.environ)
    child.process.wait()
    assert child.tail(lines=2) == "9997\n9998"


def test_stop_ends_what_the_programs_started(children: Children) -> None:
    child = children.start("parent", python(WITH_CHILD), os.environ)
    assert soon(lambda: child.log.read_text(encoding="utf-8").endswith("\n"))
    grandchild = int(child.log.read_text(encoding="utf-8"))
    children.stop()
    assert soon(lambda: not alive(grandchild))


def test_stop_forces_a_program_that_does_not_end(children: Children) -> None:
    child = children.start("stubborn", python(STUBBORN), os.environ)
    assert soon(lambda: child.log.read_text(encoding="utf-8"))
    children.stop()
    assert child.how_it_ended() == "signal SIGKILL"


@pytest.mark.skipif(sys.platform != "linux", reason="uses prctl")
def test_programs_end_when_their_launcher_is_killed(tmp_path: Path) -> None:
    program = f"""
import os, sys, time
from pathlib import Path
from backend.cli.children import Children
child = Children(Path({str(tmp_path)!r})).start("x", ["sleep", "60"], os.environ)
print(child.process.pid, flush=True)
time.sleep(60)
"""
    launcher = subprocess.Popen(
        python(program), stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True
    )
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline())
    assert alive(pid)
    launcher.kill()
    launcher.wait()
    launcher.stdout.close()
    assert soon(lambda: not alive(pid))
