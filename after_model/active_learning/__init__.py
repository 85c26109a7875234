"""Algorithm 1: the learner, what it is told to do, and when more labels stop paying."""

from after_model.active_learning.audit import Interval, Needed
from after_model.active_learning.config import (
    FINE_TUNING,
    HEAD_STARTS,
    PRESETS,
    SPEAKERS,
    WARM_STARTS,
    LearnerConfig,
    RoundRecord,
)
from after_model.active_learning.learner import ActiveLearner, Step
from after_model.active_learning.quality import Quality

__all__ = [
    "FINE_TUNING",
    "HEAD_STARTS",
    "PRESETS",
    "SPEAKERS",
    "WARM_STARTS",
    "ActiveLearner",
    "Interval",
    "LearnerConfig",
    "Needed",
    "Quality",
    "RoundRecord",
    "Step",
]
