"""What was found of a corpus, for people: recordings, labels, speakers, raters, notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from simulate.data.corpus import Corpus
from simulate.data.errors import some


def described(corpus: Corpus) -> list[str]:
    """A line a fact, the notes last; nothing of what the corpus doesn't have."""
    counts = ", ".join(f"{label} {n}" for label, n in corpus.counts().items())
    lines = [
        f"{corpus.name}: {len(corpus)} recordings",
        f"labels by the policy {corpus.policy!r}: {counts}",
        f"speakers: {len(corpus.speakers)}" if corpus.speakers else "speakers: not named",
    ]
    for what, field in (("corpora", "corpus"), ("groups", "group"), ("parts", "split")):
        found = _counted(getattr(item, field) for item in corpus.items)
        if len(found) > 1 or (found and field != "corpus"):
            lines.append(f"{what}: " + some((f"{name} {n}" for name, n in found.items()), 20))
    texts = {item.text for item in corpus.items if item.text}
    lines += [f"sentences: {len(texts)}"] if texts else []
    lines += [f"raters: {some(corpus.raters, 20)}"] if corpus.raters else []
    lines += [f"tested: {', '.join(corpus.tested)}; the others only train"] if corpus.tested else []
    lines += [f"published folds: {len(corpus.folds)}"] if corpus.folds else []
    return [*lines, *corpus.notes]


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(name for name in names if name).items()))
