"""The Qwen2-VL and Qwen2.5-VL families under the Model contract."""

import dataclasses

from evr1.models.qwen2_vl import vision
from evr1.models.qwen2_vl.weights import weights
from evr1.models.qwen3_vl.model import Qwen3VL
from evr1.models.weights import Weight


@dataclasses.dataclass(frozen=True)
class Qwen2VL(Qwen3VL):
    """Qwen2-VL or Qwen2.5-VL: their own vision tower, no DeepStack."""

    tower = vision

    def weights(self) -> tuple[Weight, ...]:
        """See Model."""
        return weights(self.config)
