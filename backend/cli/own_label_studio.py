"""The Label Studio that `run` keeps for itself: who logs in, its settings, its projects of audio.

It is reachable on this machine only. Folders of recordings are linked below one folder, which is
all that it may serve files from; a project's tasks name the files relative to it, so a folder that
moves needs a new link and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

AUDIO_KEY = "audio"
DEFAULT_LABELS = ("anger", "happiness", "neutral", "sadness")
EMAIL = "after@example.com"
# What libsndfile reads and browsers play.
SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")
CHUNK = 1000  # tasks an import
MAX_TITLE = 50  # Label Studio's limit
# Passed on to Label Studio; it reads many variables, some with names as common as HOST and PORT.
ENVIRONMENT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH")


class OwnLabelStudioError(RuntimeError):
    """Something about the folders or labels given; the message says what to do."""


@dataclass(frozen=True)
class Recordings:
    """A folder of recordings and the project that holds them; id 0: not made yet."""

    link: str  # its name below the served folder
    project: int = 0


@dataclass(frozen=True)
class Identity:
    """Who logs in, and which folder is which project; kept in a file that its owner alone reads."""

    email: str
    password: str
    token: str
    folders: dict[str, Recordings] = field(default_factory=dict)  # by absolute path

    def __repr__(self) -> str:  # keys stay out of logs and tracebacks
        return f"Identity(email={self.email!r})"


def identity(data: Path) -> Identity:
    """The identity of this data folder; made at the first start."""
    path = _identity_file(data)
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        folders = {name: Recordings(**of) for name, of in kept.pop("folders").items()}
        return Identity(**kept, folders=folders)
    except FileNotFoundError:
        if (data / "label-studio" / "label_studio.sqlite3").exists():
            raise OwnLabelStudioError(
                f"{path} is missing, and with it the password of the Label Studio in "
                f"{path.parent / 'label-studio'}: put it back, or name another folder with --data"
            ) from None
        new = Identity(EMAIL, secrets.token_urlsafe(9), secrets.token_hex(20))
        keep(data, new)
        return new
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OwnLabelStudioError(
            f"{path} can't be read ({type(error).__name__}): put back a copy, or name another "
            "folder with --data"
        ) from None


def keep(data: Path, who: Identity) -> None:
    """Write the identity beside and rename it; readable by its owner alone."""
    path = _identity_file(data)
    beside = path.with_suffix(".new")
    with open(beside, "w", encoding="utf-8", opener=_private) as file:
        json.dump(asdict(who), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def command(venv: Path, port: int) -> list[str]:
    """What starts it. Raises OwnLabelStudioError where it isn't installed."""
    program = venv / "bin" / "label-studio"
    if not program.exists():
        raise OwnLabelStudioError(
            f"no Label Studio in {venv}: run `make label-studio`, or name its virtual environment "
            "with --label-studio-venv"
        )
    return [str(program), "start", "--no-browser", "--internal-host", "127.0.0.1",
            "--port", str(port)]  # fmt: skip


def environment(data: Path, who: Identity, outside: Mapping[str, str]) -> dict[str, str]:
    """Its settings. The password and the token are here because others can see arguments."""
    kept = {k: v for k, v in outside.items() if k in ENVIRONMENT or k.startswith("LC_")}
    return kept | {
        "PYTHONUNBUFFERED": "1",
        "LABEL_STUDIO_BASE_DATA_DIR": str(data / "label-studio"),
        "LABEL_STUDIO_USERNAME": who.email,
        "LABEL_STUDIO_PASSWORD": who.password,
        "LABEL_STUDIO_USER_TOKEN": who.token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(_served(data)),
        # The backend is on this machine's loopback address, which is refused by default.
        "SSRF_PROTECTION_ENABLED": "false",
        "ML_BLOCK_LOCAL_IP": "false",
        # An import of predictions then doesn't recount the whole project.
        "fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short": "true",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
    }


def label_config(labels: Sequence[str]) -> str:
    """One choice for a recording. Raises OwnLabelStudioError for labels that are no choice."""
    labels = [label.strip() for label in labels]
    if len(labels) < 2 or not all(labels) or len(set(labels)) != len(labels):
        raise OwnLabelStudioError("--labels: give two or more different names: anger,joy,neutral")
    choices = "\n".join(f"    <Choice value={quoteattr(label)}/>" for label in labels)
    return (
        f'<View>\n  <Audio name="{AUDIO_KEY}" value="${AUDIO_KEY}"/>\n'
        f'  <Choices name="emotion" toName="{AUDIO_KEY}" choice="single" showInLine="true" '
        f'required="true">\n{choices}\n  </Choices>\n</View>\n'
    )


def recordings(folder: Path) -> list[str]:
    """The audio files in a folder and those below it, relative to it, sorted."""

    def walk() -> Iterator[str]:
        for parent, below, files in os.walk(folder):
            below[:] = [name for name in below if not name.startswith(".")]
            for name in files:
                if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                    yield os.path.relpath(os.path.join(parent, name), folder)

    return sorted(path for path in walk() if path.isprintable())


def link(data: Path, who: Identity, folder: Path) -> Identity:
    """Let Label Studio serve the folder: known by a link below the one folder it serves from."""
    served = _served(data)
    served.mkdir(parents=True, exist_ok=True)
    known = who.folders.get(str(folder))
    if known is None:
        taken = {other.link for other in who.folders.values()}
        known = Recordings(_free_name(folder.name, taken))
        who = _with_folder(who, folder, known)
        keep(data, who)
    path = served / known.link
    if not path.is_symlink() or Path(os.readlink(path)) != folder:
        path.unlink(missing_ok=True)
        path.symlink_to(folder, target_is_directory=True)
    return who


def project(
    data: Path, who: Identity, url: str, folder: Path, labels: Sequence[str]
) -> tuple[Identity, int]:
    """The project of a linked folder, made if it isn't there."""
    from label_studio_sdk.core.api_error import ApiError

    known = who.folders[str(folder)]
    client = _client(url, who)
    if known.project:
        try:
            client.projects.get(id=known.project)
            return who, known.project
        except ApiError as error:
            if error.status_code != 404:  # deleted in Label Studio
                raise
    made = client.projects.create(
        title=f"Emotion: {folder.name}"[:MAX_TITLE],
        label_config=label_config(labels),
        sampling="Uncertainty sampling",
    )
    permit(data, who, url, made.id, folder)
    who = _with_folder(who, folder, Recordings(known.link, made.id))
    keep(data, who)
    return who, made.id


def permit(data: Path, who: Identity, url: str, project: int, folder: Path) -> None:
    """Let a project serve a linked folder's files; nothing is synchronised through it."""
    storage = _client(url, who).import_storage.local
    name = who.folders[str(folder)].link
    path = str(_served(data) / name)
    if any(each.path == path for each in storage.list(project=project)):
        return
    storage.create(project=project, title=name, path=path, use_blob_urls=True)


def add_tasks(
    who: Identity, url: str, folder: Path, known: set[str], left_out: Sequence[str] = ()
) -> int:
    """Add what is in the folder and not in `known`, the audio of the tasks there; how many.

    left_out: recordings, relative to the folder, that become no tasks.
    """
    names = [path for path in recordings(folder) if path not in set(left_out)]
    tasks = [{AUDIO_KEY: path} for path in names]
    return import_new(who, url, who.folders[str(folder)].project, folder, tasks, known)


def import_new(
    who: Identity,
    url: str,
    project: int,
    folder: Path,
    tasks: Sequence[Mapping[str, Any]],
    known: set[str],
) -> int:
    """Add tasks whose audio, relative to a linked folder, is not in `known`; how many."""
    name = who.folders[str(folder)].link
    new = [
        {**task, AUDIO_KEY: uri}
        for task in tasks
        if (uri := _uri(name, task[AUDIO_KEY])) not in known
    ]
    client = _client(url, who)
    for start in range(0, len(new), CHUNK):
        client.projects.import_tasks(id=project, request=new[start : start + CHUNK])
    return len(new)


def _uri(link_name: str, path: str) -> str:
    return f"/data/local-files/?d={quote(f'{link_name}/{path}')}"


def _client(url: str, who: Identity) -> Any:
    from label_studio_sdk import LabelStudio

    return LabelStudio(base_url=url, api_key=who.token)


def _with_folder(who: Identity, folder: Path, is_now: Recordings) -> Identity:
    folders = who.folders | {str(folder): is_now}
    return Identity(who.email, who.password, who.token, folders)


def _free_name(name: str, taken: set[str]) -> str:
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "recordings"
    free, number = base, 1
    while free in taken:
        number += 1
        free = f"{base}-{number}"
    return free


def _identity_file(data: Path) -> Path:
    return data / "quickstart.json"


def _served(data: Path) -> Path:
    return data / "recordings"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
