"""HF names of the Qwen3.5 parameters."""

from evr1.models.families.qwen3_5.config import Config
from evr1.models.towers import qwen3
from evr1.models.weights import Weight, linear

_ROOT = "model.language_model."


def weights(c: Config) -> tuple[Weight, ...]:
    """Returns one entry a HF tensor, or one for the same layer of every block."""
    entries = [
        *qwen3.weights(c.vision),
        Weight(_ROOT + "embed_tokens.weight", "text/embed", "embedding", ("vocab", "embed")),
        Weight(_ROOT + "norm.weight", "text/norm/scale", "norm"),
    ]
    for i, is_full in enumerate(c.pattern):
        for weight in _layer(c, is_full, f"text/blocks/{i}/"):
            entries.append(weight._replace(layers=tuple(range(i, c.layers, len(c.pattern)))))
    if not c.tied:
        head = Weight("lm_head.weight", "text/head", "matrix", ("embed", "vocab"), is_kernel=True)
        entries.append(head)
    return tuple(entries)


def _layer(c: Config, is_full: bool, prefix: str) -> tuple[Weight, ...]:
    layer = _ROOT + "layers.{}."
    return (
        Weight(layer + "input_layernorm.weight", prefix + "norm1/scale", "norm"),
        Weight(layer + "post_attention_layernorm.weight", prefix + "norm2/scale", "norm"),
        *(_attention if is_full else _delta)(c, layer, prefix),
        *(_experts(layer, prefix) if c.experts else _mlp(f"{layer}mlp.", f"{prefix}mlp/")),
    )


def _mlp(hf: str, prefix: str) -> tuple[Weight, ...]:
    axes = {"gate": ("embed", "mlp"), "up": ("embed", "mlp"), "down": ("mlp", "embed")}
    return tuple(linear(f"{hf}{name}_proj", prefix + name, *turn)[0] for name, turn in axes.items())


def _experts(layer: str, prefix: str) -> tuple[Weight, ...]:
    """Returns the entries of every expert by itself, as transformers writes them."""
    hf, prefix = layer + "mlp.", prefix + "mlp/"
    both = "gate_up_proj"
    fused = {"gate": (both, 0, 2), "up": (both, 1, 2), "down": ("down_proj", 0, 1)}
    return (
        linear(hf + "gate", prefix + "router", "embed", None, role="router")[0],
        *(
            Weight(
                f"{hf}experts.{{}}.{name}_proj.weight",
                prefix + name,
                "experts",
                ("expert", None, "embed") if name == "down" else ("expert", "embed"),
                is_kernel=True,
                fused=f"{hf}experts.{whole}",
                part=part,
                parts=parts,
            )
            for name, (whole, part, parts) in fused.items()
        ),
        *_mlp(hf + "shared_expert.", prefix + "shared/"),
        linear(hf + "shared_expert_gate", prefix + "shared_gate", "embed", None)[0],
    )


def _attention(c: Config, layer: str, prefix: str) -> tuple[Weight, ...]:
    entries = [
        Weight(layer + "self_attn.q_norm.weight", prefix + "attention/q_norm/scale", "norm"),
        Weight(layer + "self_attn.k_norm.weight", prefix + "attention/k_norm/scale", "norm"),
    ]
    for name in "qkvo":
        turn = ("heads", "embed") if name == "o" else ("embed", "heads")
        pair = linear(f"{layer}self_attn.{name}_proj", f"{prefix}attention/{name}", *turn)
        entries += pair if c.attention_bias else pair[:1]
    return tuple(entries)


def _delta(c: Config, layer: str, prefix: str) -> tuple[Weight, ...]:
    hf, prefix = layer + "linear_attn.", prefix + "delta/"
    conv = (c.delta.channels, 1, c.delta.conv_width)
    names = (("in_proj_qkv", "qkv"), ("in_proj_z", "gate"), ("in_proj_b", "beta"))
    names += (("in_proj_a", "decay"),)
    return (
        # Whole on the tensor axis: queries, keys and values of all heads stand side by side.
        *(linear(hf + hf_name, prefix + name, "embed", None)[0] for hf_name, name in names),
        linear(hf + "out_proj", prefix + "o", None, "embed")[0],
        Weight(hf + "conv1d.weight", prefix + "conv", "other", is_kernel=True, shape=conv),
        Weight(hf + "A_log", prefix + "log_rate", "other"),
        Weight(hf + "dt_bias", prefix + "decay_bias", "other"),
        Weight(hf + "norm.weight", prefix + "norm/scale", "norm"),
    )
