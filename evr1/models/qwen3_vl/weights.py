"""HF names of the Qwen3-VL parameters."""

from evr1.models.qwen3_vl.config import Config
from evr1.models.weights import Weight


def weights(c: Config) -> tuple[Weight, ...]:
    """One entry a HF tensor (or a family of them, one a layer)."""
    return _vision(c) + text(c, "model.language_model.")


def _vision(c: Config) -> tuple[Weight, ...]:
    width = c.vision.width
    block, ours = "model.visual.blocks.{}.", "vision/blocks/"
    return (
        Weight(
            "model.visual.patch_embed.proj.weight",
            "vision/embed/patch/kernel",
            is_kernel=True,
            shape=(width, *c.vision.patch_shape),
        ),
        Weight("model.visual.patch_embed.proj.bias", "vision/embed/patch/bias"),
        Weight("model.visual.pos_embed.weight", "vision/embed/table"),
        *norm(block + "norm1", ours + "norm1"),
        *norm(block + "norm2", ours + "norm2"),
        Weight(block + "attn.qkv.weight", ours + "qkv/kernel", is_kernel=True),
        Weight(block + "attn.qkv.bias", ours + "qkv/bias", shape=(3 * width,)),
        *linear(block + "attn.proj", ours + "proj"),
        *linear(block + "mlp.linear_fc1", ours + "fc1"),
        *linear(block + "mlp.linear_fc2", ours + "fc2"),
        *_merger("model.visual.merger.", "vision/merger/"),
        *_merger("model.visual.deepstack_merger_list.{}.", "vision/deepstack/"),
    )


def text(c: Config, root: str) -> tuple[Weight, ...]:
    """The entries of the text model.

    Args:
        c: sizes.
        root: what the names of its tensors begin with.
    """
    layer, ours = root + "layers.{}.", "text/layers/"
    entries = [
        Weight(root + "embed_tokens.weight", "text/embed"),
        Weight(layer + "input_layernorm.weight", ours + "norm1/scale"),
        Weight(layer + "post_attention_layernorm.weight", ours + "norm2/scale"),
        Weight(root + "norm.weight", "text/norm/scale"),
    ]
    for name in "qk" if c.qk_norm else "":
        hf, path = f"{layer}self_attn.{name}_norm.weight", f"{ours}attention/{name}_norm/scale"
        entries.append(Weight(hf, path))
    for name in "qkvo":
        hf, path = f"{layer}self_attn.{name}_proj", f"{ours}attention/{name}"
        has_bias = c.output_bias if name == "o" else c.attention_bias
        entries += linear(hf, path) if has_bias else linear(hf, path)[:1]
    for name in ("gate", "up", "down"):
        entries += linear(f"{layer}mlp.{name}_proj", f"{ours}mlp/{name}")[:1]
    if not c.tied:
        entries.append(Weight("lm_head.weight", "text/head", is_kernel=True))
    return tuple(entries)


def linear(hf: str, path: str) -> tuple[Weight, Weight]:
    """Weight and bias of a linear layer."""
    return (
        Weight(hf + ".weight", path + "/kernel", is_kernel=True),
        Weight(hf + ".bias", path + "/bias"),
    )


def norm(hf: str, path: str) -> tuple[Weight, Weight]:
    """Weight and bias of a layer norm."""
    return Weight(hf + ".weight", path + "/scale"), Weight(hf + ".bias", path + "/bias")


def _merger(hf: str, path: str) -> tuple[Weight, ...]:
    return (
        *norm(hf + "norm", path + "norm"),
        *linear(hf + "linear_fc1", path + "fc1"),
        *linear(hf + "linear_fc2", path + "fc2"),
    )
