"""Table 2 with Figure 5 (B): AFTER from 1 % of the labels to all, and the minutes it takes."""

from __future__ import annotations

from simulate.analysis.costs import by_share
from simulate.experiments import Design, Experiment, Options, Panel
from simulate.experiments._arms import after, all_labels, as_good_as_all

SHARES = (0.01, 0.10, 0.20, 0.40, 0.60, 0.80, 1.0)


def design(options: Options) -> Design:
    arms = (after(options, SHARES), all_labels(options, tapt=options.tapt is not None))
    return Design(arms, (), (Panel("", ("AFTER",)),), as_good_as_all(arms))


EXPERIMENT = Experiment(
    "table2",
    "More labels: what they give and what they cost",
    "Table 2 and Figure 5 (B): UA, WA and minutes from 10 to 100 % of the labels.",
    design,
    (2,),
    (by_share,),
)
