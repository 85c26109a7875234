"""`python -m backend run`: Label Studio, the backend and a project of audio, on this machine.

    python -m backend run --audio recordings --labels anger,joy,neutral,sadness

Starts a Label Studio of its own, the web process and the worker, all on the loopback address, and
connects a project with the folder's recordings. Everything lies in the data folder; another start
finds it as it was and adds what is new in the folder. Ctrl-C stops all.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING
from urllib.error import URLError

from pydantic import SecretStr

from backend.cli import long_recordings, own_label_studio, people
from backend.cli.children import Child, Children
from backend.cli.own_label_studio import Identity
from backend.settings import Settings

if TYPE_CHECKING:
    from backend.label_studio.connect import Wishes

HOST = "127.0.0.1"
PATIENCE_S = 900  # of starting; the first start of Label Studio takes 1 to 3 minutes
WATCH_S = 0.5
# Asks this machine, whatever proxy the environment names.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class QuickstartError(RuntimeError):
    """What keeps it from starting; the message says what to do."""


class ChildEnded(Exception):
    """A program ended although nobody stopped it."""

    def __init__(self, child: Child) -> None:
        super().__init__(child.name)
        self.child = child


@dataclass(frozen=True)
class Options:
    """What `run` was asked for."""

    data: Path
    audio: Path | None
    labels: tuple[str, ...]
    port: int
    label_studio_port: int
    label_studio_venv: Path
    wishes: Wishes
    cut: bool = False

    @property
    def backend_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def label_studio_url(self) -> str:
        return f"http://{HOST}:{self.label_studio_port}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `python -m backend run` understands; the settings give what isn't named here."""
    parser.add_argument("--audio", type=Path, metavar="FOLDER", help="recordings to label")
    parser.add_argument(
        "--labels",
        default=",".join(own_label_studio.DEFAULT_LABELS),
        help="what a new project's recordings can be (%(default)s)",
    )
    people.add_arguments(parser)
    parser.add_argument(
        "--cut",
        action="store_true",
        help="make utterances of recordings above the length limit, cut at pauses",
    )
    parser.add_argument("--data", type=Path, help="where everything is kept (data)")
    parser.add_argument("--port", type=_port, help="of AFTER (9090)")
    parser.add_argument(
        "--label-studio-port", type=_port, default=8080, help="of Label Studio (%(default)s)"
    )
    parser.add_argument(
        "--label-studio-venv",
        type=Path,
        default=Path(os.environ.get("AFTER_LABEL_STUDIO_VENV") or ".venv-label-studio"),
        help="the virtual environment that has it (%(default)s)",
    )


def run(chosen: Settings, given: argparse.Namespace) -> int:
    """Runs until Ctrl-C or SIGTERM (0), or until one of the programs ends (1)."""
    options = _options(chosen, given)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    who = _prepare(options)
    with _alone(options.data), Children(options.data / "logs") as children:
        try:
            _start_all(options, _settings_for(options, who, chosen), who, children)
            while (ended := children.ended()) is None:
                time.sleep(WATCH_S)
            raise ChildEnded(ended)
        except KeyboardInterrupt:
            _say("\nstopping ...")
        except ChildEnded as stopped:
            child = stopped.child
            _say(f"\n{child.name} ended ({child.how_it_ended()}); the end of {child.log}:\n")
            _say("\n".join(f"    {line}" for line in child.tail().splitlines()))
            _say("\nstopping the others ...")
            return 1
        finally:
            children.stop()
            _say(f"stopped; everything is kept in {options.data}")
    return 0


def _options(chosen: Settings, given: argparse.Namespace) -> Options:
    return Options(
        data=(given.data or chosen.data).expanduser().resolve(),
        audio=given.audio.expanduser().resolve() if given.audio else None,
        labels=tuple(given.labels.split(",")),
        port=given.port or chosen.port,
        label_studio_port=given.label_studio_port,
        label_studio_venv=given.label_studio_venv.expanduser().absolute(),
        wishes=people.wishes(given, use_speakers=True),
        cut=given.cut,
    )


# --- before anything starts ----------------------------------------------------------------------


def _prepare(options: Options) -> Identity:
    """Check what can be checked in no time, and who is who."""
    own_label_studio.command(options.label_studio_venv, options.label_studio_port)
    own_label_studio.label_config(options.labels)
    if options.port == options.label_studio_port:
        raise QuickstartError("--port and --label-studio-port are the same")
    options.data.mkdir(parents=True, exist_ok=True)
    who = own_label_studio.identity(options.data)
    if options.audio is None:
        if not who.folders:
            raise QuickstartError("name a folder of recordings: --audio FOLDER")
        return who
    if not options.audio.is_dir():
        raise QuickstartError(f"--audio {options.audio}: no such folder")
    if not own_label_studio.recordings(options.audio):
        kinds = ", ".join(own_label_studio.SUFFIXES)
        raise QuickstartError(f"--audio {options.audio}: no recordings there ({kinds})")
    return own_label_studio.link(options.data, who, options.audio)


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Nobody else runs on this data folder meanwhile."""
    with (data / "quickstart.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise QuickstartError(
                f"already running on {data}; stop it first, or name another folder with --data"
            ) from None
        yield


def _check_free(port: int, option: str) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen()
        except OSError as error:
            raise QuickstartError(
                f"port {port} can't be used ({error.strerror}): choose another with {option} "
                f"(with make: OPTIONS='{option} {_free_port()}')"
            ) from None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def _settings_for(options: Options, who: Identity, chosen: Settings) -> Settings:
    """The settings of the web process and the worker, which this process has, too."""
    return chosen.model_copy(
        update={
            "data": options.data,
            "host": HOST,
            "port": options.port,
            "url": options.backend_url,
            "label_studio_url": options.label_studio_url,
            "label_studio_api_key": SecretStr(who.token),
        }
    )


# --- starting ------------------------------------------------------------------------------------


def _start_all(options: Options, chosen: Settings, who: Identity, children: Children) -> None:
    """Start everything, connect, and say what to do."""
    _check_free(options.label_studio_port, "--label-studio-port")
    _check_free(options.port, "--port")

    first = not (options.data / "label-studio" / "label_studio.sqlite3").exists()
    children.start(
        "Label Studio",
        own_label_studio.command(options.label_studio_venv, options.label_studio_port),
        own_label_studio.environment(options.data, who, os.environ),
    )
    hint = " (the first start takes 1 to 3 minutes)" if first else ""
    _wait(f"Label Studio{hint}", f"{options.label_studio_url}/health", children)
    who, shown = _fill(options, who, chosen.max_audio_s)

    for name, command in (("web", "serve"), ("worker", "worker")):
        children.start(
            name, [sys.executable, "-m", "backend", command], _environment(chosen, os.environ)
        )
    _wait("AFTER", f"{options.backend_url}/health", children)
    _connect_all(options, chosen, who)
    _say(guide(options, who, shown))


def _environment(chosen: Settings, outside: Mapping[str, str]) -> dict[str, str]:
    return dict(outside) | {
        "PYTHONUNBUFFERED": "1",
        "AFTER_DATA": str(chosen.data),
        "AFTER_HOST": chosen.host,
        "AFTER_PORT": str(chosen.port),
        "AFTER_URL": chosen.url,
        "AFTER_LABEL_STUDIO_URL": chosen.label_studio_url,
        "AFTER_LABEL_STUDIO_API_KEY": chosen.label_studio_api_key.get_secret_value(),
    }


def _fill(options: Options, who: Identity, limit_s: float) -> tuple[Identity, int]:
    """The project of the folder, with its recordings as tasks; (identity, project to show).

    limit_s: recordings that are longer are cut, or it is said that they are left out.
    """
    from backend.label_studio.predictions import LabelStudio

    if options.audio is None:
        return who, max(folder.project for folder in who.folders.values())
    url = options.label_studio_url
    who, project = own_label_studio.project(options.data, who, url, options.audio, options.labels)
    tasks = LabelStudio(url, who.token).tasks(project)
    known = {str(task.data.get(own_label_studio.AUDIO_KEY)) for task in tasks}
    long = long_recordings.longer_than(options.audio, limit_s)
    added = own_label_studio.add_tasks(who, url, options.audio, known, long if options.cut else ())
    if long and options.cut:
        _say(f"cutting {len(long)} recordings of more than {limit_s:g} s at pauses ...")
        who, segments, wrong = long_recordings.add_segments(
            options.data, who, url, options.audio, limit_s, known
        )
        added += segments
        for reason in wrong:
            _say(f"left out: {reason}")
    elif long:
        _say(
            f"{len(long)} recordings last more than {limit_s:g} s and will not be heard, "
            f"{long[0]} first; make utterances of them with --cut (with make: OPTIONS=--cut)"
        )
    _say(f"project {project}: {len(tasks) + added} recordings, {added} of them new")
    return who, project


def _connect_all(options: Options, chosen: Settings, who: Identity) -> None:
    """Connect the projects of all folders: an address may have changed since the last start.

    What was said of speakers and of the guess is of the folder that was named.
    """
    from backend.label_studio.connect import Wishes, connect
    from backend.label_studio.predictions import LabelStudioError

    for folder, recordings in who.folders.items():
        if not recordings.project:
            continue
        named = options.audio is None or folder == str(options.audio)
        wishes = options.wishes if named else Wishes()
        project, url = recordings.project, options.label_studio_url
        try:
            connected = connect(chosen, url, who.token, project, chosen.url, wishes)
        except LabelStudioError as error:
            if named:
                raise
            _say(f"project {project} ({folder}) is left out: {error}")
            continue
        if named:
            for line in connected.people:
                _say(f"project {project}: {line}")


def _wait(what: str, url: str, children: Children) -> None:
    """Until the address answers; raises ChildEnded or QuickstartError."""
    began = time.monotonic()
    show = _progress(f"starting {what} ...")
    while not _answers(url):
        if (ended := children.ended()) is not None:
            raise ChildEnded(ended)
        if time.monotonic() - began > PATIENCE_S:
            raise QuickstartError(f"{url} did not answer in {PATIENCE_S} s; see the logs")
        show(time.monotonic() - began, False)
        time.sleep(WATCH_S)
    show(time.monotonic() - began, True)


def _answers(url: str) -> bool:
    try:
        with _OPENER.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


# --- what it says --------------------------------------------------------------------------------


def guide(options: Options, who: Identity, project: int) -> str:
    """Where to go and what to do there, in a box."""
    lines = [
        f"Label here       {options.label_studio_url}/projects/{project}/data",
        f"Log in as        {who.email}",
        f"Password         {who.password}",
        f"How it goes      {options.backend_url}/",
        f"Kept in          {options.data}",
        "",
        'Press "Label All Tasks", listen and choose; Label Studio brings the recording next',
        "that the model needs most. It prepares the order first, minutes for some hundred",
        "recordings; label meanwhile if you like. From then on it learns by itself.",
        "Ctrl-C stops all; the next start goes on where this one was.",
    ]
    width = max(map(len, lines))
    body = "\n".join(f"│ {line.ljust(width)} │" for line in lines)
    return f"\n┌{'─' * (width + 2)}┐\n{body}\n└{'─' * (width + 2)}┘\n"


def _progress(text: str) -> Callable[[float, bool], None]:
    """Shows the seconds on one line of a terminal; elsewhere a line at the beginning and end."""
    terminal = sys.stdout.isatty()
    print(text, end=" " if terminal else "\n", flush=True)

    def show(seconds: float, done: bool) -> None:
        state = f"ready after {seconds:.0f} s" if done else f"{seconds:.0f} s"
        if terminal:
            print(f"\r{text} {state}", end="\n" if done else "", flush=True)
        elif done:
            _say(state)

    return show


def _say(text: str) -> None:
    print(text, flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _port(text: str) -> int:
    port = int(text) if text.isdecimal() else 0
    if not 1 <= port <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; use 1 to 65535")
    return port
