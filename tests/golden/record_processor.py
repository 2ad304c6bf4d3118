"""Records what HF's Qwen3VLProcessor makes of small prompts: tests/golden/processor.json.

Run it with torch, torchvision and transformers 5.23: python tests/golden/record_processor.py
It also writes the tiny HF directory tests/golden/qwen_tiny (tokenizer, chat template, processors).
"""

import json
from pathlib import Path

import numpy as np
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

HERE = Path(__file__).parent
SPECIAL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CORPUS = (
    "user assistant seconds answer how many digits are there in the video?",
    "which way does it move? reply with the letter, the number or the box in pixels",
    "when is it visible? start and end",
)
CHAT = """{%- for message in messages %}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}
{%- if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>
{%- else %}{{ part.text }}{% endif %}
{%- endfor %}{% endif %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
# (problem, media); a video is (frames, height, width, frame indices, fps), an image (height, width)
CASES = (
    ("How many?", ()),
    ("<video>How many digits are there?", ((4, 64, 96, (0, 30, 60, 89), 30.0),)),
    ("<video>\nHow many?", ((5, 64, 64, (0, 7, 15, 22, 30), 29.97),)),
    ("<image>What is it?  Two spaces,\n\nlines and tabs\t.", ((96, 64),)),
    ("Compare <image> with <image>.", ((64, 64), (128, 32))),
    ("<image><video>both: which?", ((64, 96), (2, 32, 64, (10, 11), 25.0))),
    (
        "<video>first <video> second<image>",
        ((3, 32, 32, (0, 50, 100), 10.0), (6, 64, 32, (0, 1, 2, 3, 4, 5), 1.0), (32, 32)),
    ),
    ("<video>中文问题：有几个数字？ café e\u0301 😀 −3", ((2, 64, 64, (0, 1234), 24.0),)),
    ("<video> it's <answer>B</answer> <|im_end|> 12345", ((4, 32, 32, (0, 1, 2, 3), 60.0),)),
    ("<video>", ((8, 64, 64, tuple(range(0, 8000, 1000)), 23.976),)),
)


def main() -> None:
    """Writes the directory and the cases."""
    out = HERE / "qwen_tiny"
    write_directory(out)
    from transformers import AutoProcessor
    from transformers.video_utils import VideoMetadata

    hf = AutoProcessor.from_pretrained(out)
    rng = np.random.default_rng(0)
    cases = []
    for problem, media in CASES:
        parts = [{"type": "text", "text": problem}]
        for kind in ("image", "video"):
            split = []
            for part in parts:
                texts = part["text"].split(f"<{kind}>") if part["type"] == "text" else None
                if texts is None:
                    split.append(part)
                    continue
                for i, text in enumerate(texts):
                    split += [{"type": kind}] if i else []
                    split += [{"type": "text", "text": text}] if text else []
            parts = split
        chat = hf.apply_chat_template(
            [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
        )
        videos = [m for m in media if len(m) == 5]
        frames = [rng.integers(0, 255, (n, h, w, 3), np.uint8) for n, h, w, _, _ in videos]
        images = [rng.integers(0, 255, (*m, 3), np.uint8) for m in media if len(m) == 2]
        batch = hf(
            text=[chat],
            images=images or None,
            videos=frames or None,
            video_metadata=[
                VideoMetadata(total_num_frames=max(i) + 1, fps=r, frames_indices=list(i))
                for *_, i, r in videos
            ]
            or None,
            do_resize=False,
            do_sample_frames=False,
            return_tensors="np",
        )
        cases.append({"problem": problem, "media": media, "ids": batch["input_ids"][0].tolist()})
    text = ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases)
    (HERE / "processor.json").write_text(f"[\n{text}\n]\n", "utf-8")


def write_directory(out: Path) -> None:
    """A Qwen-like tokenizer of a few hundred entries, its chat template and processor settings."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet)
    )
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    out.mkdir(exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    (out / "chat_template.jinja").write_text(CHAT)
    vision = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
    vision |= {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "processor_class": "Qwen3VLProcessor",
    }
    small = {"size": {"shortest_edge": 1024, "longest_edge": 1 << 20}}
    files = {
        "tokenizer_config.json": {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
        },
        "generation_config.json": {"eos_token_id": [tokenizer.token_to_id("<|im_end|>")]},
        "preprocessor_config.json": {
            "image_processor_type": "Qwen2VLImageProcessor",
            **vision,
            **small,
        },
        "video_preprocessor_config.json": {
            "video_processor_type": "Qwen3VLVideoProcessor",
            **vision,
            **small,
        },
    }
    for name, content in files.items():
        (out / name).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
