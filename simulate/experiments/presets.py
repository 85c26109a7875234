"""Both presets side by side, at the same shares: what is recommended, and the paper's method."""

from __future__ import annotations

from dataclasses import replace

from after_model.active_learning import PRESETS, LearnerConfig
from simulate.experiments import Claim, Design, Experiment, Options, Panel
from simulate.runs.plan import Arm
from simulate.systems.after import After

SHARES = (0.01, 0.05, 0.10, 0.20, 0.40)


def design(options: Options) -> Design:
    """With `--preset paper` both have its validation part, whose labels are counted for both;
    without it neither has, and the paper's fine-tuning stops by none."""
    shares = options.shares or SHARES
    arms = []
    for name in sorted(PRESETS):
        learner = LearnerConfig.preset(
            name, backbone=options.learner.backbone, speakers=options.learner.speakers
        )
        if learner.fine_tuning == options.learner.fine_tuning:  # the command's changes count
            learner = replace(options.learner, tapt=options.tapt)
        arms.append(Arm(f"preset {name}", After(learner), shares))
    names = tuple(arm.name for arm in arms)
    return Design(
        tuple(arms), (Claim("the presets differ", ((names[0], names[1]),)),), (Panel("", names),)
    )


EXPERIMENT = Experiment(
    "presets",
    "The presets side by side",
    "Beyond the paper: its method beside what measurement recommends, with the same labels.",
    design,
)
