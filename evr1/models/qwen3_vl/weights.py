"""HF names of the Qwen3-VL parameters, dense and mixture of experts."""

from evr1.models.qwen3_vl.config import Config, VisionConfig
from evr1.models.weights import Weight


def weights(c: Config) -> tuple[Weight, ...]:
    """One entry a HF tensor (or a family of them, one a layer)."""
    return vision_weights(c.vision) + text_weights(c, "model.language_model.")


def vision_weights(c: VisionConfig) -> tuple[Weight, ...]:
    """The entries of the vision tower."""
    deepstack = _merger("model.visual.deepstack_merger_list.{}.", "vision/deepstack/")
    block, ours = "model.visual.blocks.{}.", "vision/blocks/"
    return (
        Weight(
            "model.visual.patch_embed.proj.weight",
            "vision/embed/patch/kernel",
            is_kernel=True,
            shape=(c.width, *c.patch_shape),
        ),
        Weight("model.visual.patch_embed.proj.bias", "vision/embed/patch/bias"),
        Weight("model.visual.pos_embed.weight", "vision/embed/table"),
        *norm(block + "norm1", ours + "norm1"),
        *norm(block + "norm2", ours + "norm2"),
        Weight(block + "attn.qkv.weight", ours + "qkv/kernel", is_kernel=True),
        Weight(block + "attn.qkv.bias", ours + "qkv/bias", shape=(3 * c.width,)),
        *linear(block + "attn.proj", ours + "proj"),
        *linear(block + "mlp.linear_fc1", ours + "fc1"),
        *linear(block + "mlp.linear_fc2", ours + "fc2"),
        *_merger("model.visual.merger.", "vision/merger/"),
        *(deepstack if c.taps else ()),
    )


def text_weights(c: Config, root: str) -> tuple[Weight, ...]:
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
    if c.dense_layers:
        numbers = c.dense_layers if c.moe else ()
        for name in ("gate", "up", "down"):
            entry = linear(f"{layer}mlp.{name}_proj", f"{ours}mlp/{name}")[0]
            entries.append(entry._replace(layers=numbers))
    entries += _experts(c, layer, ours)
    if not c.tied:
        entries.append(Weight("lm_head.weight", "text/head", is_kernel=True))
    return tuple(entries)


def _experts(c: Config, layer: str, ours: str) -> list[Weight]:
    if c.moe is None:
        return []
    router = Weight(layer + "mlp.gate.weight", ours + "moe/router/kernel", is_kernel=True)
    entries = [router._replace(layers=c.moe.layers)]
    sizes = {"gate_up": (c.width, 2 * c.moe.mlp_width), "down": (c.moe.mlp_width, c.width)}
    for name, (fan_in, fan_out) in sizes.items():
        entries.append(
            Weight(
                f"{layer}mlp.experts.{name}_proj",
                f"{ours}moe/{name}",
                layers=c.moe.layers,
                # transformers 5 takes a square one for its own order, whoever wrote it.
                is_swapped=c.moe.is_swapped or fan_in == fan_out,
                is_either=True,
            )
        )
    return entries


def linear(hf: str, path: str) -> tuple[Weight, Weight]:
    """Kernel and bias of a linear layer."""
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
