"""The paper's merged corpora as data: members, class mappings, counts (section 4.1, Table 1).

What the paper prints can't all be had from the releases; `remark` says of each member why. In
short: all of IEMOCAP's utterances are counted though only 5,531 have one of the four labels;
EmoDB's 408 are its 339 of the four emotions and 69 of fear, which the printed ratio (3.1 of anger
to 1.0 of sadness) counts as anger; ShEMO's numbers are those of its paper, not of its files.
A merge of corpora in a list (`emodb+ravdess`) keeps what their default classes have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FOUR = ("anger", "happiness", "neutral", "sadness")
SEVEN = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")


@dataclass(frozen=True)
class Member:
    """A corpus of a merge. mapping: merged class by the corpus's own; what isn't named is left out.

    published: how many samples the paper says it has, None where it doesn't.
    """

    corpus: str
    mapping: Mapping[str, str]
    published: int | None = None
    remark: str = ""


@dataclass(frozen=True)
class Merge:
    """Corpora taken together. tested: those that are tested on, the others only train."""

    name: str
    classes: tuple[str, ...]
    members: tuple[Member, ...]
    tested: tuple[str, ...]
    published: int | None = None


def same(*classes: str) -> dict[str, str]:
    """The mapping of classes that keep their names."""
    return {name: name for name in classes}


_MERGED = (
    Member(
        "iemocap",
        same(*FOUR),
        10_038,
        "the paper counts every utterance; 5,531 have one of the four labels, excited among happy",
    ),
    Member(
        "emodb",
        same(*FOUR),
        408,
        "339 of the four emotions; the paper's 408 and its ratio count 69 of fear as anger",
    ),
    Member(
        "shemo",
        same(*FOUR),
        2_737,
        "the released files' names have 2,767 of the four emotions, the corpus's paper 2,737",
    ),
    Member("ravdess", same(*FOUR), 672),
    Member(
        "emovdb",
        {"amusement": "happiness", "anger": "anger", "neutral": "neutral"},
        3_038,
        "amused counts as happy; which recordings make the paper's 3,038 isn't said",
    ),
    Member("cremad", same(*FOUR), 4_900),
)

PUBLISHED = (
    Merge("merged", FOUR, _MERGED, ("iemocap",), 21_793),
    Merge(
        "merged-2",
        FOUR,
        (*_MERGED, Member("afew", same(*FOUR)), Member("baum1s", same(*FOUR))),
        ("iemocap",),
    ),
    Merge(
        "merged-3",
        SEVEN,
        (
            Member("emodb", same(*SEVEN[:-1])),  # it has no surprise
            Member("ravdess", same(*SEVEN)),
            Member("afew", same(*SEVEN)),
            Member("baum1s", same(*SEVEN)),
        ),
        ("baum1s",),
    ),
)
