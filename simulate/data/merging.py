"""Corpora taken together: ids prefixed by the corpus, classes mapped, counts beside the paper's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from simulate.data.corpus import Corpus, Item, Release, chosen_classes, select
from simulate.data.errors import CorpusError
from simulate.data.merges import Member, Merge, same
from simulate.data.policies import RELEASE, Annotation


def merged(
    merge: Merge,
    releases: Sequence[Release],
    classes: Sequence[str] | None = None,
    policy: str | None = None,
) -> Corpus:
    """The corpus of a merge; releases: in the order of its members.

    Raises `CorpusError` where a member has no recording of the classes.
    """
    parts = [
        _mapped(member, release) for member, release in zip(merge.members, releases, strict=True)
    ]
    whole = Release(
        name=merge.name,
        items=tuple(item for part in parts for item in part.items),
        annotations=tuple(a for part in parts for a in part.annotations),
        classes=merge.classes,
        default=merge.classes,
        notes=tuple(f"{p.name}: {n}" for p in parts for n in p.notes),
    )
    corpus = select(whole, classes, policy)
    counts = Counter(item.corpus for item in corpus.items)
    without = [member.corpus for member in merge.members if not counts[member.corpus]]
    if without:
        raise CorpusError(f"{merge.name}: no recordings of {', '.join(without)} in its classes")
    notes = (*corpus.notes, *_compared(merge, counts))
    return replace(corpus, notes=notes, tested=merge.tested)


def of_list(name: str, releases: Sequence[Release], classes: Sequence[str] | None = None) -> Merge:
    """The merge of a list such as `emodb+ravdess`, all of which are tested.

    classes: None for those that are default in all of them. Raises `CorpusError` where that is
    none, or where a corpus hasn't one that was asked for.
    """
    default = releases[0].default
    shared = classes or [c for c in default if all(c in r.default for r in releases)]
    if not shared:
        raise CorpusError(f"{name}: no class is in all of these corpora; name some as classes")
    for release in releases:
        chosen_classes(release.name, release.classes, shared, shared)
    corpora = name.split("+")
    members = tuple(Member(corpus, same(*shared)) for corpus in corpora)
    return Merge(name, tuple(shared), members, tested=())


def _mapped(member: Member, release: Release) -> Release:
    """A member's release with merged classes, and with its own names told from the others'."""
    name = member.corpus

    def own(text: str) -> str:
        return f"{name}/{text}" if text else ""

    def renamed(a: Annotation) -> Annotation:
        labels = dict.fromkeys(_class(member.mapping, label, name) for label in a.labels)
        rater = a.rater if a.rater == RELEASE else own(a.rater)
        return Annotation(own(a.item), rater, tuple(labels))

    items = (
        Item(own(i.id), i.path, name, own(i.speaker), own(i.group), i.split, own(i.text))
        for i in release.items
    )
    return replace(
        release,
        name=name,
        items=tuple(items),
        annotations=tuple(renamed(a) for a in release.annotations),
    )


def _class(mapping: Mapping[str, str], label: str, corpus: str) -> str:
    """The merged class; one outside the merge keeps a name of its own, and is left out by it."""
    return mapping.get(label, f"{corpus}'s {label}")


def _compared(merge: Merge, counts: Mapping[str, int]) -> Iterable[str]:
    for member in merge.members:
        beside = f" (Table 1: {member.published:,})" if member.published else ""
        remark = f": {member.remark}" if member.remark else ""
        yield f"{member.corpus} {counts[member.corpus]:,}{beside}{remark}"
    beside = f" (Table 1: {merge.published:,})" if merge.published else ""
    yield f"{merge.name} {sum(counts.values()):,}{beside}"
