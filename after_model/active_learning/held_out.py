"""Which of the given labels no model may learn from, so that models can be judged by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from after_model.active_learning.hashing import number


def held_out(
    classes: Mapping[str, int],
    speakers: Mapping[str, str],
    share: float,
    *,
    held: Sequence[str] = (),
    trained: Collection[str] = (),
    least: int = 1,
) -> list[str]:
    """Ids that are held out from now on: those of before and, up to the share, new ones.

    classes: class index by id of all that is labelled. speakers: who speaks, by id. trained: ids
    that a model has learnt from; they stay so. Where every labelled recording names its speaker
    whole speakers are held out, so that no speaker is on both sides; else every class gives its
    share. Fewer than `least` in all are too few to judge by: then no new ones are held out.
    """
    if share <= 0:
        return list(held)
    taken, learnt = set(held), set(trained)
    free = sorted((i for i in classes if i not in taken and i not in learnt), key=number)
    if all(speakers.get(i) for i in classes):
        new = _by_speaker(classes, speakers, share, taken, learnt, free)
    else:
        new = _by_class(classes, share, taken, free)
    enough = len(taken.intersection(classes)) + len(new) >= least
    return [*held, *new] if enough else list(held)


def _by_class(
    classes: Mapping[str, int], share: float, taken: set[str], free: list[str]
) -> list[str]:
    wanted = {label: round(share * n) for label, n in Counter(classes.values()).items()}
    wanted = {
        label: n - sum(1 for i in taken if classes.get(i) == label) for label, n in wanted.items()
    }
    new = []
    for key in free:
        if wanted[classes[key]] > 0:
            wanted[classes[key]] -= 1
            new.append(key)
    return new


def _by_speaker(
    classes: Mapping[str, int],
    speakers: Mapping[str, str],
    share: float,
    taken: set[str],
    learnt: set[str],
    free: list[str],
) -> list[str]:
    """New recordings of held-out speakers, and further speakers while that brings it nearer."""
    ours = {speakers[i] for i in taken if i in speakers}
    seen = {speakers[i] for i in learnt if i in speakers}
    new = [i for i in free if speakers[i] in ours]
    count, wanted = len(taken.intersection(classes)) + len(new), share * len(classes)
    sizes = Counter(speakers[i] for i in free)
    others = [s for s in sizes if s not in ours and s not in seen]
    for speaker in sorted(others, key=number):
        if abs(count + sizes[speaker] - wanted) < abs(count - wanted):
            new += [i for i in free if speakers[i] == speaker]
            count += sizes[speaker]
    return new
