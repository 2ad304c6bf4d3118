"""Makes the small Qwen3-VL that the demo starts from: `python tools/make_demo_model.py --out DIR`.

A tokenizer trained on the demo's own wording, random initial weights, and a short supervised
warm-up on clips of scans that neither training nor evaluation ever shows. In the warm-up's last
part the teacher is careless: half the time it does not look and gives the question's stock answer.
So the model answers in the right form, but is right only some of the time, and leaves to
reinforcement learning what that is for: to find out which of its answers earn a reward.
"""

import argparse
import dataclasses
import functools
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).parents[1]))

from evr1.batch.collate import Collator
from evr1.batch.shapes import ShapeTable
from evr1.data import prompts
from evr1.data.demo import scenes
from evr1.data.processor import Processor
from evr1.data.records import Example, Media, Row
from evr1.models import load_model
from evr1.models.base import Model
from evr1.models.io import hf
from evr1.types import Params, Prompts

SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>"),
    *("<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
ADDED = ("<tool_call>", "</tool_call>", "<think>", "</think>")  # plain tokens, as in Qwen3
# Unlike Qwen's, a piece may span several words: the few fixed phrases of the demo become a token
# each, and prompts short. Numbers are cut into two digits: a coordinate is one token.
PIECES = r"\p{N}{1,2}|\n|<[^<>\n\p{N}]*>|[^<>\n\p{N}]+|[<>]"
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- else -%}
{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
FRAME_TIMES = np.arange(8) / 2  # seconds; where configs/demo.py samples a clip
POS_GRID = 8  # side of the learned position table
QUESTIONS = 4  # per warm-up clip
QUESTION_TOKENS = (24, 52)  # lengths that (question, answer) pairs are padded to
SHAPES = ShapeTable((72,), (4,), (scenes.SIDE // 8) ** 2, 1)  # of a clip without its question


def make_tokenizer(texts: Sequence[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Returns a byte-level BPE in Qwen's form, trained on `texts`; special tokens come last."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL) - len(ADDED),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ADDED])
    return tokenizer


def write_side_files(out: Path, tokenizer: tokenizers.Tokenizer) -> None:
    """Everything of the HF directory but the weights."""
    vocabulary = tokenizer.get_vocab()
    ids = {name: vocabulary[name] for name in SPECIAL}
    tokenizer.save(str(out / "tokenizer.json"))
    geometry = {"patch_size": 8, "temporal_patch_size": 2, "merge_size": 2}
    pixels = {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "processor_class": "Qwen3VLProcessor",
    }
    area = scenes.SIDE**2
    files = {
        "config.json": model_config(ids, tokenizer.get_vocab_size()),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "processor_class": "Qwen3VLProcessor",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": 4096,
            "clean_up_tokenization_spaces": False,
        },
        "generation_config.json": {
            "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
            "pad_token_id": ids["<|endoftext|>"],
            "do_sample": True,
            "temperature": 1.0,
        },
        "preprocessor_config.json": {
            "image_processor_type": "Qwen2VLImageProcessor",
            "size": {"shortest_edge": 1024, "longest_edge": area},
            **geometry,
            **pixels,
        },
        "video_preprocessor_config.json": {
            "video_processor_type": "Qwen3VLVideoProcessor",
            "size": {"shortest_edge": 1024, "longest_edge": area * len(FRAME_TIMES)},
            **geometry,
            **pixels,
        },
    }
    for name, content in files.items():
        (out / name).write_text(json.dumps(content, indent=2) + "\n")
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def model_config(ids: dict[str, int], vocab_size: int) -> dict:
    """Returns the config.json: Qwen3-VL in small, DeepStack and interleaved M-RoPE included."""
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": True,
        "text_config": {
            "model_type": "qwen3_vl_text",
            "vocab_size": vocab_size,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "hidden_act": "silu",
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "attention_bias": False,
            "initializer_range": 0.08,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "tie_word_embeddings": True,
        },
        "vision_config": {
            "model_type": "qwen3_vl",
            "depth": 3,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "hidden_act": "gelu_pytorch_tanh",
            "in_channels": 3,
            "patch_size": 8,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "out_hidden_size": 128,
            "num_position_embeddings": POS_GRID**2,
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": 0.1,
        },
    }


def make_row(question: scenes.Question, data_type: str, number: int) -> Row:
    """Returns a question about a clip that is never written to a file."""
    media = ("in memory",)
    return Row(
        index=number,
        problem=f"<{data_type}>{question.problem}",
        answer=question.answer,
        problem_type=question.problem_type,
        data_type=data_type,
        images=media if data_type == "image" else (),
        videos=media if data_type == "video" else (),
        options=question.options,
        problem_id=str(number),
        video_start=None,
        video_end=None,
        source="warm-up",
        extra={},
    )


def draw_rows(seed: int, clip: int, glyphs: scenes.Glyphs) -> tuple[Media, list[Row]]:
    """Returns a warm-up clip as its decoder gives it, and up to QUESTIONS questions about it."""
    scene, questions = scenes.draw("warmup", seed, clip, glyphs, QUESTIONS)
    is_video = scene.kind != "picture"
    times = FRAME_TIMES if is_video else np.zeros(1)
    frames = np.stack([scenes.render(scene, t) for t in times])
    media = Media(frames, times if is_video else times[:0], is_video)
    return media, [make_row(q, "video" if is_video else "image", clip) for q in questions]


def stock_answer(row: Row) -> str:
    """Returns what the careless teacher says when it does not look."""
    box = "[16,16,32,32]"
    seconds = re.findall(r"(\d) s\b", row.problem)
    return {
        "multiple choice": "A",
        "numerical": "2",
        "regression": "6" if "fast" in row.problem else "16",
        "boolean": "Yes",
        "ocr": "1 2",
        "math": "5",
        "temporal grounding": '{"time":[1,2]}',
        "spatial grounding": f'{{"boxes":{box}}}',
        "spatial-temporal grounding": f'{{"time":[1.5,2.5],"boxes":{{"2":{box}}}}}',
        "tracking": '{"boxes":{' + ",".join(f'"{s}":{box}' for s in seconds) + "}}",
        "open-ended": "A medium 1 stays in its place.",
    }[row.problem_type]


def corpus(seed: int, clips: int) -> list[str]:
    """Texts to train the tokenizer on: prompts, answers, and every number up to two digits."""
    glyphs = scenes.load_glyphs("warmup")
    template = prompts.built_in_template()
    texts = [f"<{i // 10}.{i % 10} seconds>user\nassistant\n" for i in range(40)]
    texts += [str(i) for i in range(10, 100)] * 5
    for clip in range(clips):
        for row in draw_rows(seed, clip, glyphs)[1]:
            texts.append(prompts.render_task(row, template, thinking=False, box_scale="pixels"))
            texts += [f"<answer>{a}</answer>" for a in (row.answer, stock_answer(row))]
    return texts


def split_example(example: Example) -> tuple[Example, np.ndarray]:
    """Returns the clip's part of a prompt as an example, and the tokens of the question."""
    cut = int(np.flatnonzero(example.is_visual)[-1]) + 2  # after the end-of-vision token
    clip = dataclasses.replace(
        example,
        tokens=example.tokens[:cut],
        is_visual=example.is_visual[:cut],
        positions=example.positions[:, :cut],
        next_position=int(example.positions[0, cut]),
    )
    return clip, example.tokens[cut:]


def warmup_batch(
    processor: Processor,
    seed: int,
    step: int,
    clips: int,
    glyphs: scenes.Glyphs,
    careless: float,
) -> tuple[Prompts, np.ndarray, np.ndarray]:
    """Returns clips with their questions as completions: a clip goes through the model once.

    Returns:
        The clips; int32[G, N, R], questions with their answers; float32[G, N, R], the weight of
        each token in the loss: answer tokens only.
    """
    rng = np.random.default_rng([seed, step])
    end = processor.end_ids[:1]
    examples, pairs = [], []
    for clip in range(step * clips, (step + 1) * clips):
        media, asked = draw_rows(seed, clip, glyphs)
        parts = [split_example(processor.encode(row, [media])) for row in asked]
        examples.append(parts[0][0])
        for n, ((_, question), row) in enumerate(zip(parts, asked, strict=True)):
            answer = stock_answer(row) if rng.random() < careless else row.answer
            ids = [*processor.tokenize(f"<answer>{answer}</answer>"), *end]
            pairs.append((len(examples) - 1, n, question, ids))
    longest = max(len(q) + len(a) for _, _, q, a in pairs)
    length = next(n for n in QUESTION_TOKENS if n >= longest)
    tokens = np.full((clips, QUESTIONS, length), processor.pad_id, np.int32)
    weights = np.zeros(tokens.shape, np.float32)
    for g, n, question, ids in pairs:
        cut, stop = len(question), len(question) + len(ids)
        tokens[g, n, :stop] = [*question, *ids]
        weights[g, n, cut:stop] = 1 / (len(ids) * len(pairs))  # every answer counts the same
    collate = Collator(SHAPES, processor.geometry, POS_GRID, processor.pad_id)
    return collate(examples), tokens, weights


def init_params(model: Model, seed: int) -> Params:
    """Returns random parameters, with words and positions that stand out from the start.

    At this width a token's embedding would drown in what the first layers add to it, and a patch's
    place in its pixels; the model would spend most of its warm-up on getting them back.
    """
    params = model.init(jax.random.key(seed))
    params["text"]["embed"] *= 3
    params["text"]["norm"]["scale"] /= 3  # the same logits
    params["vision"]["embed"]["table"] *= 7
    params["vision"]["embed"]["patch"]["kernel"] *= 0.4
    return params


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of the warm-up. `careless` is the share of answers that are stock answers."""

    steps: int
    learning_rate: float
    careless: float


def warm_up(
    params: Params,
    model: Model,
    processor: Processor,
    phase: Phase,
    first_step: int,
    args: argparse.Namespace,
) -> Params:
    """Returns the parameters after a phase of supervised steps."""
    glyphs = scenes.load_glyphs("warmup")
    rate = optax.warmup_cosine_decay_schedule(
        0, phase.learning_rate, phase.steps // 20, phase.steps, phase.learning_rate / 10
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.98))
    state = optimizer.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Params, state: Any, clips: Prompts, tokens: jax.Array, weights: jax.Array):
        def loss(params):
            logits = model.logits(params, model.group_hidden(params, clips, tokens))
            return (optax.softmax_cross_entropy_with_integer_labels(logits, tokens) * weights).sum()

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    begin, losses = time.perf_counter(), []
    for i in range(first_step, first_step + phase.steps):
        made = warmup_batch(processor, args.seed, i, args.clips, glyphs, phase.careless)
        params, state, value = step(params, state, *made)
        losses.append(value)
        if len(losses) % 25 == 0 or len(losses) == phase.steps:
            mean = np.mean(jax.device_get(losses[-25:]))
            seconds = time.perf_counter() - begin
            print(f"step {i + 1}  loss {mean:.3f}  {seconds:.0f} s", flush=True)
    return params


def main() -> None:
    """Parses the flags and makes the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="HF directory to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=700, help="warm-up steps with right answers")
    parser.add_argument("--careless_steps", type=int, default=100, help="steps of the last part")
    parser.add_argument(
        "--careless", type=float, default=0.65, help="share of stock answers in the last part"
    )
    parser.add_argument("--clips", type=int, default=16, help="clips per step")
    args = parser.parse_args()
    phases = (Phase(args.steps, 2e-3, 0.0), Phase(args.careless_steps, 5e-4, args.careless))
    with tempfile.TemporaryDirectory() as folder:
        write_side_files(Path(folder), make_tokenizer(corpus(args.seed, 2000), 800))
        model, processor = load_model(folder, remat="none"), Processor.from_hf(folder)
        params, done = init_params(model, args.seed), 0
        for phase in phases:
            params = warm_up(params, model, processor, phase, done, args)
            done += phase.steps
        hf.save_params(params, model, args.out, source_dir=folder, dtype="bfloat16")
    count = sum(x.size for x in jax.tree.leaves(params))
    print(f"{count:,} parameters are in {args.out}")


if __name__ == "__main__":
    main()
