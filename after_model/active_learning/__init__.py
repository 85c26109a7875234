"""Algorithm 1: the learner, what it is told to do, and when more labels stop paying."""

from after_model.active_learning.config import HEAD_STARTS, WARM_STARTS, LearnerConfig, RoundRecord
from after_model.active_learning.learner import ActiveLearner

__all__ = ["HEAD_STARTS", "WARM_STARTS", "ActiveLearner", "LearnerConfig", "RoundRecord"]
