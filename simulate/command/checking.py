"""Is a corpus there as it is released? What `--check` looks at, and how it tells it.

Everything is read: the release's layout and counts, every recording, then what a run would use of
it under the chosen labels. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import track

from after_model import audio
from after_model.audio import AudioError
from simulate import data
from simulate.data import Corpus, CorpusError, DeviationError, Deviations, Item, Release
from simulate.data.merges import PUBLISHED

SHOWN = 40
"""Files named of each kind that is wrong; the number of all is told."""
PARTIAL = "allow_partial"
AS_RELEASED, PARTIAL_CORPUS = ", as released", "partial corpus:"
"""What notes say of whether a corpus is whole."""


@dataclass(frozen=True)
class Checked:
    """What was found, line by line; complete: nothing is missing, extra or unreadable."""

    lines: tuple[str, ...]
    complete: bool


def check(
    name: str,
    root: data.Root,
    classes: Sequence[str] | None = None,
    policy: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Checked:
    """A corpus, or each member of a merge and then the whole."""
    given = {key: value for key, value in (options or {}).items() if key != PARTIAL}
    members = data.members(name)
    found = [_member(member, root, _of(member, given)) for member in members]
    lines = [line for one in found for line in (*one.lines, "")]
    complete = all(one.complete for one in found)
    try:
        corpus = data.load(name, root, classes, policy, **_lenient(name, given))
    except CorpusError as error:
        return Checked((*lines, str(error)), False)
    lines += [f"What a run uses by the labels {corpus.policy!r}:", *_used(corpus)]
    verdict = "Complete." if complete else "NOT complete: see above."
    return Checked((*lines, "", verdict), complete)


def _member(name: str, root: data.Root, options: Mapping[str, Any]) -> Checked:
    """One corpus against its release: all of its emotions, whatever a run uses."""
    where = data.root_of_corpus(name, root)
    head = f"{name}: {where or 'generated'}"
    try:
        release = data.read(name, root, **_lenient(name, options))
    except CorpusError as error:
        return Checked((head, f"  {error}"), False)
    deviations, problem = None, ""
    try:
        strict = {**options, **({PARTIAL: False} if PARTIAL in data.options(name) else {})}
        release = data.read(name, root, release.classes, **strict)
    except DeviationError as error:
        deviations = error.deviations
    except CorpusError as error:
        problem = str(error)
    broken, seconds = _decoded(release.items)
    lines = [
        head,
        *_counted(release, deviations),
        *([f"  {problem}"] if problem else []),
        *_published(name),
        *_listed("unreadable", [str(error) for error in broken]),
        f"  {len(release.items) - len(broken)} of {len(release.items)} recordings decoded, "
        f"{seconds / 60:.1f} minutes of audio",
    ]
    return Checked(tuple(lines), not (deviations or problem or broken))


def _counted(release: Release, deviations: Deviations | None) -> Iterator[str]:
    """Counts beside the release's, and every file that makes the difference."""
    if not deviations:
        yield from (f"  {note}" for note in release.notes)
        return
    width = max(len(what) for what, _, _ in deviations.counts)
    yield f"  {'':{width}}  found  released"
    for what, found, wanted in deviations.counts:
        sign = "" if found == wanted else "  <"
        yield f"  {what:{width}}  {found:5}  {wanted:8}{sign}"
    yield from _listed("missing", deviations.missing)
    yield from _listed("unexpected", deviations.unexpected)
    yield from _listed("without audio", deviations.empty)


def _listed(what: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        yield f"  {what} ({len(names)}):"
        yield from (f"    {name}" for name in names[:SHOWN])
        if len(names) > SHOWN:
            yield f"    and {len(names) - SHOWN} more"


def _published(name: str) -> Iterator[str]:
    """What the paper says of a corpus, or why that is another number."""
    members = (m for merge in PUBLISHED for m in merge.members if m.corpus == name and m.published)
    for member in members:
        remark = f": {member.remark}" if member.remark else ""
        yield f"  the paper's Table 1: {member.published:,}{remark}"
        return  # the same in each merge


def _decoded(items: Sequence[Item]) -> tuple[list[AudioError], float]:
    """The recordings that can't be decoded, and how many seconds all others are long."""

    def decode(item: Item) -> AudioError | float:
        try:
            return len(audio.load(item.path)) / audio.SAMPLE_RATE
        except AudioError as error:
            return error

    console = Console(stderr=True)
    with ThreadPoolExecutor() as threads:
        found = list(
            track(
                threads.map(decode, items),
                "decoding",
                len(items),
                console=console,
                transient=True,
                disable=not console.is_terminal,
            )
        )
    broken = [one for one in found if isinstance(one, AudioError)]
    return broken, sum(one for one in found if not isinstance(one, AudioError))


def _used(corpus: Corpus) -> list[str]:
    """Without the notes on whether files are there, which stand above."""
    lines = data.described(corpus)
    return [f"  {x}" for x in lines if not x.endswith(AS_RELEASED) and PARTIAL_CORPUS not in x]


def _of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that one corpus's loader has."""
    return {key: value for key, value in options.items() if key in data.options(name)}


def _lenient(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    partial = {PARTIAL: True} if PARTIAL in data.options(name) else {}
    return {**options, **partial}
