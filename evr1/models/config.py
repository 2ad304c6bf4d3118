"""The sizes of a model, as far as every family has them."""

import dataclasses

import numpy as np

from evr1.formats.processor_files import Statistics
from evr1.models.nn import rope
from evr1.models.nn.experts import ExpertsConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The vision tower.

    Attributes:
        patch_values: pixels of a patch times channels.
        patch_shape: channels, frames, rows and columns of a patch.
        merge: patches on a side of a visual token.
        taps: DeepStack: the blocks whose output is handed on to the text model.
        table: rows of the learned position table; a tower without one has 1, since batches are
            built for a table.
        window: patches on a side of an attention window; 0: whole frames.
        full_blocks: blocks that attend beyond a window, to their whole frame.
        is_gated: blocks have RMS norm and SwiGLU in place of layer norm and GELU.
    """

    depth: int
    width: int
    mlp_width: int
    heads: int
    patch_values: int
    patch_shape: tuple[int, int, int, int]
    merge: int
    out_width: int
    rope_theta: float
    pixels: Statistics
    init_scale: float
    taps: tuple[int, ...] = ()
    table: int = 1
    window: int = 0
    full_blocks: tuple[int, ...] = ()
    is_gated: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model: its vision tower, and what the text models have in common."""

    layers: int
    width: int
    mlp_width: int
    heads: int
    kv_heads: int
    head_dim: int
    rotary_dim: int  # of a head's channels, the first ones
    vocab_size: int
    norm_eps: float
    rope_theta: float
    rope_sections: tuple[int, int, int]
    attention_bias: bool  # of q, k and v
    tied: bool
    init_scale: float
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
    vision: VisionConfig
    experts: ExpertsConfig | None = None  # None: every layer has one feed-forward of `mlp_width`

    @property
    def attention_layers(self) -> int:
        """Layers that keep keys and values: all."""
        return self.layers

    @property
    def state_flops(self) -> int:
        """Operations of a token on recurrent states: there are none."""
        return 0

    @property
    def experts_per_token(self) -> int:
        """Experts that work on a token; 0: every token meets all of a layer."""
        return self.experts.per_token if self.experts else 0

    @property
    def routed_share(self) -> float:
        """The share of the experts that works on a token."""
        return self.experts.per_token / self.experts.count if self.experts else 0.0

    @property
    def rope_freqs(self) -> np.ndarray:
        """Inverse frequencies of the text model."""
        return rope.frequencies(self.rotary_dim, self.rope_theta)

    @property
    def rope_axes(self) -> np.ndarray:
        """The position axis (t, h, w) of each frequency."""
        return rope.interleaved_axes(self.rope_sections, self.rotary_dim // 2)
