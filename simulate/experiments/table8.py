"""Table 8: the same with several backbones (`--backbone A,B`)."""

from __future__ import annotations

from dataclasses import replace

from simulate.experiments import Claim, Design, Experiment, Options, Panel
from simulate.experiments._arms import after, all_labels, arm
from simulate.runs.plan import Arm

SHARES = (0.01, 0.10, 0.20, 0.30, 0.40, 0.60, 0.80, 1.0)
SECOND = {"facebook/wav2vec2-base": "facebook/hubert-base-ls960"}
"""The paper's pair. Of what is embedded, the second is the smallest."""
SMALLEST = "after-tiny"


def design(options: Options) -> Design:
    first = options.learner.backbone
    names = options.backbones[1:] or (SECOND.get(first, SMALLEST),)
    arms: list[Arm] = []
    pairs, between = [], []
    for name in (first, *names):
        own = replace(options, learner=replace(options.learner, backbone=name))
        prefix = "" if name == first else f"{_title(name)}: "
        random = arm(own, SHARES, "random", options.learner.start, tapt=False)
        found = [after(own, SHARES), random, all_labels(own, tapt=options.tapt is not None)]
        named = [replace(one, name=prefix + one.name) for one in found]
        arms += named
        pairs.append((named[0].name, named[1].name))
        if prefix:
            between.append((arms[0].name, named[0].name))
    curves = tuple(one.name for one in arms if not one.full)
    claims = (Claim("AFTER pays", tuple(pairs)), Claim("the first backbone", tuple(between)))
    return Design(tuple(arms), claims, (Panel("", curves),))


def _title(backbone: str) -> str:
    """As Table 8 calls it."""
    return "HuBERT" if "hubert" in backbone.lower() else backbone.rpartition("/")[2]


EXPERIMENT = Experiment(
    "table8",
    "The same with another backbone",
    "Table 8: FT on random samples and AFTER, with wav2vec 2.0 and with HuBERT.",
    design,
    (8,),
)
