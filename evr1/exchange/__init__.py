"""What passes between the sampling side and the learner: groups one way, weights the other."""

from evr1.exchange.group import Group
from evr1.exchange.published import Published, publish
from evr1.exchange.rollout_batch import RolloutBatch, stack

__all__ = ["Group", "Published", "RolloutBatch", "publish", "stack"]
