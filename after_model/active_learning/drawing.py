"""Which recordings are asked for as audits, and where in the order.

A recording's place among audits is a hash of seed and id: it stays as the pool grows, shrinks or is
labelled, so that those with the lowest hashes are a uniform sample of whatever pool there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from after_model.active_learning.audit import LEAST
from after_model.active_learning.hashing import number

EVERY = 8
"""Until there are LEAST audit labels every eighth label is one: below them nothing is told."""


CATCHING_UP = 4
"""No more than every fourth label is an audit where many are due, as after an upgrade."""


def order(ids: Iterable[str], seed: int) -> list[str]:
    """The ids in the order in which they would be audited."""
    return sorted(ids, key=lambda name: (number(f"{seed}|audit|{name}"), name))


def due(labels: int, share: float) -> int:
    """How many of so many labels are to be audits; none where the share is 0."""
    if share <= 0:
        return 0
    return max(int(share * labels + 1e-9), min(LEAST, labels // EVERY))


def mixed(
    wanted: Sequence[str], audits: Iterable[str], *, labels: int, held: int, share: float
) -> tuple[list[str], list[str]]:
    """(as many as are wanted, with an audit wherever one is due; which are audits).

    audits: in their order; one that is wanted more comes where it is wanted and is none. labels:
    given so far, audits included; held: how many of them are audits.
    """
    waiting, asked, drawn = iter(audits), dict[str, None](), list[str]()
    apart = CATCHING_UP if share <= 1 / CATCHING_UP else 2
    rest = (name for name in wanted if name not in asked)
    while len(asked) < len(wanted):
        given, audit = labels + len(asked), None
        if given % apart == 0 and due(given + 1, share) > held + len(drawn):
            audit = next((i for i in waiting if i not in asked), None)
        if audit is not None:
            drawn.append(audit)
        name = audit or next(rest, None)
        if name is None:
            break
        asked[name] = None
    return list(asked), drawn
