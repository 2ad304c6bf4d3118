"""The Qwen2-VL and Qwen2.5-VL families under the Model contract."""

import dataclasses

import jax
import jax.numpy as jnp

from evr1.models.qwen2_vl import vision as tower
from evr1.models.qwen2_vl.weights import weights
from evr1.models.qwen3_vl.model import Qwen3VL
from evr1.models.weights import Weight
from evr1.types import Params, VisionInput, Visual


@dataclasses.dataclass(frozen=True)
class Qwen2VL(Qwen3VL):
    """Qwen2-VL or Qwen2.5-VL: their own vision tower, no DeepStack."""

    def init_vision(self, key: jax.Array) -> Params:
        """See Qwen3VL."""
        return tower.init(self.config.vision, key)

    def encode_vision(self, params: Params, vision: VisionInput) -> Visual:
        """See Qwen3VL."""
        return tower.encode(
            self.config.vision,
            params,
            vision,
            dtype=jnp.dtype(self.dtype),
            remat=self.remat,
            implementation=self.implementation,
        )

    def weights(self) -> tuple[Weight, ...]:
        """See Model."""
        return weights(self.config)
