"""HF names of the Qwen3.5 parameters."""

from evr1.models.qwen3_5.config import Config
from evr1.models.qwen3_vl.weights import linear, vision_weights
from evr1.models.weights import Weight


def weights(c: Config) -> tuple[Weight, ...]:
    """One entry a HF tensor, or one for the same layer of every block."""
    entries = [
        *vision_weights(c.vision),
        Weight("model.language_model.embed_tokens.weight", "text/embed"),
        Weight("model.language_model.norm.weight", "text/norm/scale"),
    ]
    for i, is_full in enumerate(c.pattern):
        for weight in _layer(c, is_full, f"text/blocks/{i}/"):
            entries.append(weight._replace(layers=tuple(range(i, c.layers, len(c.pattern)))))
    if not c.tied:
        entries.append(Weight("lm_head.weight", "text/head", is_kernel=True))
    return tuple(entries)


def _layer(c: Config, is_full: bool, ours: str) -> tuple[Weight, ...]:
    layer = "model.language_model.layers.{}."
    return (
        Weight(layer + "input_layernorm.weight", ours + "norm1/scale"),
        Weight(layer + "post_attention_layernorm.weight", ours + "norm2/scale"),
        *(_attention if is_full else _delta)(c, layer, ours),
        *(_experts(layer, ours) if c.experts else _mlp(f"{layer}mlp.", f"{ours}mlp/")),
    )


def _mlp(hf: str, ours: str) -> tuple[Weight, ...]:
    return tuple(linear(f"{hf}{name}_proj", ours + name)[0] for name in ("gate", "up", "down"))


def _experts(layer: str, ours: str) -> tuple[Weight, ...]:
    """As transformers writes them: every expert of every layer by itself."""
    hf, ours = layer + "mlp.", ours + "mlp/"
    both = "gate_up_proj"
    fused = {"gate": (both, 0, 2), "up": (both, 1, 2), "down": ("down_proj", 0, 1)}
    return (
        linear(hf + "gate", ours + "router")[0],
        *(
            Weight(
                f"{hf}experts.{{}}.{name}_proj.weight",
                ours + name,
                is_kernel=True,
                fused=f"{hf}experts.{whole}",
                part=part,
                parts=parts,
            )
            for name, (whole, part, parts) in fused.items()
        ),
        *_mlp(hf + "shared_expert.", ours + "shared/"),
        linear(hf + "shared_expert_gate", ours + "shared_gate")[0],
    )


def _attention(c: Config, layer: str, ours: str) -> tuple[Weight, ...]:
    entries = [
        Weight(layer + "self_attn.q_norm.weight", ours + "attention/q_norm/scale"),
        Weight(layer + "self_attn.k_norm.weight", ours + "attention/k_norm/scale"),
    ]
    for name in "qkvo":
        pair = linear(f"{layer}self_attn.{name}_proj", f"{ours}attention/{name}")
        entries += pair if c.attention_bias else pair[:1]
    return tuple(entries)


def _delta(c: Config, layer: str, ours: str) -> tuple[Weight, ...]:
    hf, ours = layer + "linear_attn.", ours + "delta/"
    conv = (c.delta.channels, 1, c.delta.conv_width)
    names = (("in_proj_qkv", "qkv"), ("in_proj_z", "gate"), ("in_proj_b", "beta"))
    names += (("in_proj_a", "decay"), ("out_proj", "o"))
    return (
        *(linear(hf + theirs, ours + name)[0] for theirs, name in names),
        Weight(hf + "conv1d.weight", ours + "conv", is_kernel=True, shape=conv),
        Weight(hf + "A_log", ours + "log_rate"),
        Weight(hf + "dt_bias", ours + "decay_bias"),
        Weight(hf + "norm.weight", ours + "norm/scale"),
    )
