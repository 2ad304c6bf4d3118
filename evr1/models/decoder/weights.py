"""HF names of the decoder's parameters, dense and mixture of experts."""

from evr1.models.decoder.config import Config
from evr1.models.weights import Weight, linear


def weights(c: Config, root: str) -> tuple[Weight, ...]:
    """Returns one entry a HF tensor, or one for the same tensor of all layers.

    Args:
        c: sizes.
        root: what the names of its tensors begin with.
    """
    layer, prefix = root + "layers.{}.", "text/layers/"
    entries = [
        Weight(root + "embed_tokens.weight", "text/embed", "embedding", ("vocab", "embed")),
        Weight(layer + "input_layernorm.weight", prefix + "norm1/scale", "norm"),
        Weight(layer + "post_attention_layernorm.weight", prefix + "norm2/scale", "norm"),
        Weight(root + "norm.weight", "text/norm/scale", "norm"),
    ]
    for name in "qk" if c.qk_norm else "":
        hf, path = f"{layer}self_attn.{name}_norm.weight", f"{prefix}attention/{name}_norm/scale"
        entries.append(Weight(hf, path, "norm"))
    for name in "qkvo":
        hf, path = f"{layer}self_attn.{name}_proj", f"{prefix}attention/{name}"
        is_output = name == "o"
        has_bias = c.output_bias if is_output else c.attention_bias
        pair = linear(hf, path, *(("heads", "embed") if is_output else ("embed", "heads")))
        entries += pair if has_bias else pair[:1]
    if c.dense_layers:
        numbers = c.dense_layers if c.sparse_layers else ()
        for name in ("gate", "up", "down"):
            turn = ("mlp", "embed") if name == "down" else ("embed", "mlp")
            entry = linear(f"{layer}mlp.{name}_proj", f"{prefix}mlp/{name}", *turn)[0]
            entries.append(entry._replace(layers=numbers))
    entries += _experts(c, layer, prefix)
    if not c.tied:
        head = Weight("lm_head.weight", "text/head", "matrix", ("embed", "vocab"), is_kernel=True)
        entries.append(head)
    return tuple(entries)


def _experts(c: Config, layer: str, prefix: str) -> list[Weight]:
    if c.experts is None:
        return []
    router = linear(layer + "mlp.gate", prefix + "moe/router", "embed", None, role="router")[0]
    entries = [router._replace(layers=c.sparse_layers)]
    inner = c.experts.mlp_width
    kernels = {
        "gate_up": (c.width, 2 * inner, ("expert", "embed")),
        "down": (inner, c.width, ("expert", None, "embed")),
    }
    for name, (fan_in, fan_out, axes) in kernels.items():
        entries.append(
            Weight(
                f"{layer}mlp.experts.{name}_proj",
                f"{prefix}moe/{name}",
                "experts",
                axes,
                layers=c.sparse_layers,
                # transformers 5 reads a square kernel in its own order, whoever wrote it.
                is_swapped=c.is_swapped or fan_in == fan_out,
                is_either=True,
            )
        )
    return entries
