"""Runs the Dockerfile without a container engine: its own commands, in a clean Debian.

    sudo make test-image          # or: python tests/image.py [--keep FOLDER]

debootstrap makes a Debian 12 with Python (the image's base has the same releases); then each RUN,
ENV, COPY, WORKDIR and USER of the Dockerfile is carried out in it as an engine would. Last, CMD is
started, HEALTHCHECK asked until it is content, and the worker started, all as the image's user.
Needs root, debootstrap and about 4 GB in the temporary folder; takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUITE = "bookworm"
PACKAGES = "ca-certificates,python3,python3-venv"
PATIENCE_S = 120
# A container of this image gets these from outside.
GIVEN = {"AFTER_BASIC_AUTH_USER": "image", "AFTER_BASIC_AUTH_PASS": "only-for-this-test",
         "AFTER_PORT": "19390"}  # fmt: skip


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, its lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The exec form's words, or the shell form as the shell gets it."""
        if self.text.startswith("["):
            return list(map(str, json.loads(self.text)))
        return ["/bin/sh", "-c", self.text]


@dataclass
class Image:
    """What the instructions so far have set."""

    variables: dict[str, str] = field(default_factory=dict)  # ARG, for the build alone
    environment: dict[str, str] = field(default_factory=dict)  # ENV
    folder: str = "/"
    user: str = "root"
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def expand(self, text: str) -> str:
        known = self.variables | self.environment
        return re.sub(r"\$\{?(\w+)\}?", lambda match: known.get(match[1], ""), text)


def parse(dockerfile: str) -> list[Instruction]:
    """The instructions of a Dockerfile."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", "", "\n".join(lines))
    parts = [line.strip().split(None, 1) for line in joined.splitlines() if line.strip()]
    return [Instruction(name.upper(), text) for name, text in parts]


def build(instructions: list[Instruction], root: Path) -> Image:
    """Carry out the instructions in `root`."""
    image = Image()
    for instruction in instructions:
        print(f"--- {instruction.name} {instruction.text[:100]}", flush=True)
        began = time.monotonic()
        _carry_out(instruction, image, root)
        if instruction.name == "RUN":
            print(f"    {time.monotonic() - began:.0f} s", flush=True)
    return image


def _carry_out(instruction: Instruction, image: Image, root: Path) -> None:
    name, text = instruction.name, instruction.text
    if name == "ARG":
        key, _, value = text.partition("=")
        image.variables[key] = value
    elif name == "ENV":
        for pair in shlex.split(text):
            key, _, value = pair.partition("=")
            image.environment[key] = image.expand(value)
    elif name == "WORKDIR":
        image.folder = image.expand(text)
        (root / image.folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
    elif name == "COPY":
        *sources, target = text.split()
        _copy(sources, root / image.folder.lstrip("/"), target)
    elif name == "RUN":
        variables = image.variables | _pip_environment()
        process = inside(root, image, instruction.words, variables)
        if process.wait() != 0:
            raise SystemExit(f"RUN failed with exit status {process.returncode}")
    elif name == "USER":
        image.user = text
    elif name == "CMD":
        image.command = instruction.words
    elif name == "HEALTHCHECK":
        image.health = Instruction("CMD", text.split("CMD", 1)[1].strip()).words
    elif name not in ("FROM", "EXPOSE", "VOLUME"):
        raise SystemExit(f"{name}: tests/image.py doesn't know this instruction")


def _copy(sources: list[str], folder: Path, target: str) -> None:
    for source in sources:
        path = ROOT / source
        to = folder / path.name if target in (".", "./") else folder / target
        if path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, to, dirs_exist_ok=True, ignore=ignored)
        else:
            shutil.copy2(path, to)


def inside(
    root: Path, image: Image, command: list[str], more: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Start a command in the image, as its user, with its environment and nothing else."""
    environment = {"HOME": "/root"} | image.environment | more
    pairs = [f"{key}={value}" for key, value in environment.items()]
    go = 'cd "$0" && exec "$@"'
    return subprocess.Popen(
        ["chroot", f"--userspec={image.user}", str(root), "/usr/bin/env", "-i", *pairs,
         "/bin/sh", "-c", go, image.folder, *command],
        start_new_session=True,
    )  # fmt: skip


def check(root: Path, image: Image) -> None:
    """CMD becomes healthy and the worker stays; neither is root; both end when asked."""
    web = inside(root, image, image.command, GIVEN)
    worker = inside(root, image, ["python", "-m", "backend", "worker"], GIVEN)
    try:
        began = time.monotonic()
        while inside(root, image, image.health, GIVEN).wait() != 0:
            if web.poll() is not None or time.monotonic() - began > PATIENCE_S:
                raise SystemExit("CMD does not become healthy")
            time.sleep(1)
        print(f"--- HEALTHCHECK content {time.monotonic() - began:.0f} s after CMD")
        time.sleep(15)
        for name, process in (("CMD", web), ("worker", worker)):
            if process.poll() is not None:
                raise SystemExit(f"{name} ended with exit status {process.returncode}")
            user = os.stat(f"/proc/{process.pid}").st_uid
            if user == 0:
                raise SystemExit(f"{name} runs as root")
            print(f"--- {name} runs as user {user}")
    finally:
        for process in (web, worker):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for name, process in (("CMD", web), ("worker", worker)):
            try:
                print(f"--- {name} ended with {process.wait(30)} after SIGTERM")
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                print(f"--- {name} had to be killed")


# --- the root ------------------------------------------------------------------------------------


@contextmanager
def clean_root(kept: Path | None) -> Iterator[Path]:
    """A new Debian in a temporary folder, or a copy of a kept one, which is made if need be."""
    with tempfile.TemporaryDirectory(prefix="after-image-") as folder:
        root = Path(folder) / "root"
        base = root if kept is None else kept
        if not base.exists():
            print(f"--- debootstrap {SUITE}", flush=True)
            subprocess.run(
                ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(base)],
                check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        if kept is not None:
            subprocess.run(["cp", "-a", str(kept), str(root)], check=True)
        mounted = []
        try:
            for path in _pip_paths():
                _lay(path, root, mounted)
            (root / "etc" / "resolv.conf").write_bytes(Path("/etc/resolv.conf").read_bytes())
            _mount(["-t", "proc", "proc"], root / "proc", mounted)
            yield root
        finally:
            for target in reversed(mounted):
                subprocess.run(["umount", "--lazy", str(target)], check=False)


def _pip_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key.startswith("PIP_")}


def _pip_paths() -> list[Path]:
    """Configuration files of this machine's pip, and files and folders that they name."""
    pip = [sys.executable, "-m", "pip", "config"]
    found = subprocess.run([*pip, "debug"], capture_output=True, text=True, check=True).stdout
    files = re.findall(r"^\s*(/\S+), exists: True", found, re.MULTILINE)
    listed = subprocess.run([*pip, "list"], capture_output=True, text=True, check=True).stdout
    named = re.findall(r"(?:file://)?(/[^\s']+)", re.sub(r"https?://\S+", "", listed))
    paths = sorted({Path(path) for path in [*files, *named]})
    return [p for p in paths if p.exists() and not p.is_relative_to(sys.prefix)]


def _lay(path: Path, root: Path, mounted: list[Path]) -> None:
    target = root / str(path).lstrip("/")
    if path.is_dir():
        # An index's pages name files beside them: the folder above comes along.
        if path.name == "simple":
            path, target = path.parent, target.parent
        if target not in mounted:
            target.mkdir(parents=True, exist_ok=True)
            _mount(["--bind", str(path)], target, mounted)
    elif not any(parent in mounted for parent in target.parents):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _mount(what: list[str], target: Path, mounted: list[Path]) -> None:
    subprocess.run(["mount", *what, str(target)], check=True)
    mounted.append(target)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keep", type=Path, help="keep the clean Debian here, for the next time")
    options = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        print("needs root and debootstrap (apt-get install debootstrap)", file=sys.stderr)
        return 2
    with clean_root(options.keep) as root:
        image = build(parse((ROOT / "Dockerfile").read_text(encoding="utf-8")), root)
        check(root, image)
    print("the image's commands work")
    return 0


if __name__ == "__main__":
    sys.exit(main())
