"""HF names of the Qwen2-VL and Qwen2.5-VL parameters."""

from evr1.models.qwen3_vl.config import Config
from evr1.models.qwen3_vl.weights import linear, norm, text_weights
from evr1.models.weights import Weight


def weights(c: Config) -> tuple[Weight, ...]:
    """One entry a HF tensor (or a family of them, one a layer), named as on the hub."""
    v = c.vision
    block, ours = "visual.blocks.{}.", "vision/blocks/"
    mlp = (("gate_proj", "gate"), ("up_proj", "fc1"), ("down_proj", "fc2"))
    if not v.is_gated:
        mlp = (("fc1", "fc1"), ("fc2", "fc2"))
    count = 1 if v.is_gated else 2  # an RMS norm has no bias
    return (
        Weight(
            "visual.patch_embed.proj.weight",
            "vision/embed/patch/kernel",
            is_kernel=True,
            shape=(v.width, *v.patch_shape),
        ),
        *norm(block + "norm1", ours + "norm1")[:count],
        *norm(block + "norm2", ours + "norm2")[:count],
        Weight(block + "attn.qkv.weight", ours + "qkv/kernel", is_kernel=True),
        Weight(block + "attn.qkv.bias", ours + "qkv/bias", shape=(3 * v.width,)),
        *linear(block + "attn.proj", ours + "proj"),
        *(w for hf, path in mlp for w in linear(f"{block}mlp.{hf}", ours + path)),
        *norm("visual.merger.ln_q", "vision/merger/norm")[:count],
        *linear("visual.merger.mlp.0", "vision/merger/fc1"),
        *linear("visual.merger.mlp.2", "vision/merger/fc2"),
        *text_weights(c, "model."),
    )
