"""Where the corpora lie on this machine: one TOML file, so that no command has to say it.

    [roots]                         # after.toml, in the folder that commands are given in
    emodb = "~/EmoDB"
    ravdess = "/data/RAVDESS"

The file is --roots, else $AFTER_ROOTS, else ./after.toml if it is there. A relative path begins at
the file. A merge of corpora finds all of its members' roots.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulate import data
from simulate.command.values import UsageError

FILE = "after.toml"
VARIABLE = "AFTER_ROOTS"
TABLE = "roots"
GENERATED = "demo"
"""The corpus that needs no root."""


@dataclass(frozen=True)
class Roots:
    """Folders (or manifests) by corpus, and the file that says so; None: there is no such file."""

    file: Path | None = None
    paths: Mapping[str, Path] = field(default_factory=dict)

    def of(self, corpus: str) -> data.Root:
        """The root of a corpus, or those of a merge's members; raises UsageError naming the fix."""
        members = data.members(corpus)
        for member in members:
            self._check(member, corpus)
        if len(members) == 1:
            return self.paths.get(corpus)
        return {member: self.paths[member] for member in members}

    def lacking(self, corpus: str) -> list[str]:
        """Members of a corpus that have no root here."""
        return [m for m in data.members(corpus) if m not in self.paths and m != GENERATED]

    def _check(self, member: str, corpus: str) -> None:
        needed = "" if member == corpus else f", which {corpus} needs"
        if member not in self.paths:
            if member == corpus == GENERATED:
                return
            where = f"{self.file}, [{TABLE}], has no {member}" if self.file else "there is none"
            raise UsageError(
                f"--corpus {corpus} needs --root: where its recordings are; or a line "
                f'{member} = "FOLDER"{needed} below [{TABLE}] in {self.file or FILE} ({where})'
            )
        path = self.paths[member]
        if not path.exists():
            raise UsageError(
                f"{self.file}, [{TABLE}], {member}{needed}: there is no such file or folder: "
                f"{path}; mend the path, or give --root"
            )


def find(given: Path | None) -> Roots:
    """The roots that apply. Raises UsageError naming file, key and fix."""
    named = given or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is None:
        return read(Path(FILE)) if Path(FILE).is_file() else Roots()
    file = named.expanduser()
    if not file.is_file():
        option = "--roots" if given else f"${VARIABLE}"
        raise UsageError(f"{option} {file}: there is no such file; it is TOML with [{TABLE}]")
    return read(file)


def read(file: Path) -> Roots:
    """What a file says. Raises UsageError."""
    try:
        content: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f'{file}: no TOML: {error}; lines are like emodb = "~/EmoDB"') from None
    table = content.pop(TABLE, None)
    if not isinstance(table, dict) or content:
        what = f"no [{TABLE}]" if table is None else f"not known: {', '.join(content) or TABLE}"
        raise UsageError(f'{file}: {what}; below [{TABLE}] write lines like emodb = "~/EmoDB"')
    return Roots(file, {name: _path(file, name, value) for name, value in table.items()})


def _path(file: Path, name: str, value: object) -> Path:
    where = f"{file}, [{TABLE}], {name}"
    try:
        merged = len(data.members(name)) > 1
    except data.CorpusError as error:
        raise UsageError(f"{where}: {error}") from None
    if merged:
        raise UsageError(f"{where}: merged corpora have no root; name those of its members")
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f'{where}: {value!r} is no path; write {name} = "FOLDER"')
    return file.parent / Path(value).expanduser()
