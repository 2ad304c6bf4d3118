"""A step of RL as one writes it with transformers: generate, old log-probabilities, one update."""

import contextlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from evr1.data.records import Example

if importlib.util.find_spec("torchvision") is not None:
    # Where its compiled half is missing, as for some CPUs, it fails at import without these.
    with contextlib.suppress(RuntimeError):
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for _name in ("nms", "qnms"):
            _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import transformers  # noqa: E402  torchvision comes first

CLIP_LOW, CLIP_HIGH = 0.2, 0.28


class Drawn(NamedTuple):
    """Completions of all prompts, and what their update needs.

    Attributes:
        tokens: int64[G * n, R].
        advantages: float32[G * n].
        old: float32[G * n, R], log-probabilities before the update.
    """

    tokens: Any
    advantages: Any
    old: Any


class Loop:
    """Every completion has a copy of its prompt and of the video, in every pass.

    Args:
        directory: of the model.
        examples: G prompts of one length.
        n: completions of a prompt.
        tokens: R, of a completion.
        rows: sequences of a pass that computes log-probabilities.
        banned: ids that are not drawn.
        device: of torch.
        dtype: of the weights.
        learning_rate: of AdamW; its other settings are evr1's defaults.
        is_checkpointed: activations are computed again in the backward pass.
    """

    def __init__(
        self,
        directory: Path,
        examples: Sequence[Example],
        *,
        n: int,
        tokens: int,
        rows: int,
        banned: Sequence[int],
        device: str,
        dtype: str,
        learning_rate: float,
        is_checkpointed: bool,
    ) -> None:
        self.n, self.tokens, self.rows, self.banned = n, tokens, rows, list(banned)
        made: Any = transformers.Qwen3VLForConditionalGeneration
        self.model = made.from_pretrained(directory, dtype=getattr(torch, dtype)).to(device)
        self.model.generation_config.eos_token_id = None  # completions are of one length
        if is_checkpointed:
            self.model.gradient_checkpointing_enable()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=learning_rate, betas=(0.9, 0.999), weight_decay=0.0
        )
        self.device = device
        self.prompts = [self._prompt(example) for example in examples]

    def _prompt(self, example: Example) -> dict[str, Any]:
        """Returns a prompt as the model takes it, alone."""
        ids = torch.from_numpy(example.tokens.astype(np.int64))[None]
        pixels = (example.patches.astype(np.float32) / 255 - 0.5) / 0.5
        fields = {
            "input_ids": ids,
            "mm_token_type_ids": torch.from_numpy(2 * example.is_visual.astype(np.int64))[None],
            "pixel_values_videos": torch.from_numpy(pixels).to(self.model.dtype),
            "video_grid_thw": torch.from_numpy(example.grid_thw.astype(np.int64)),
        }
        return {name: value.to(self.device) for name, value in fields.items()}

    def rollout(self) -> Any:
        """Returns int64[G * n, R], drawn at temperature 1."""
        whole = [_repeated(prompt, self.n) for prompt in self.prompts]
        batch = {name: torch.cat([each[name] for each in whole]) for name in whole[0]}
        with torch.no_grad():
            out = self.model.generate(
                **batch,
                attention_mask=torch.ones_like(batch["input_ids"]),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=self.tokens,
                suppress_tokens=self.banned,
                pad_token_id=0,
            )
        return out[:, batch["input_ids"].shape[1] :]

    def logprobs(self, prompt: int, completions: Any) -> Any:
        """Returns float32[rows, R] of completions of a prompt."""
        batch = _repeated(self.prompts[prompt], len(completions))
        batch["input_ids"] = torch.cat([batch["input_ids"], completions], 1)
        kinds = batch["mm_token_type_ids"]
        batch["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(completions)], 1)
        logits = self.model(
            **batch,
            attention_mask=torch.ones_like(batch["input_ids"]),
            logits_to_keep=self.tokens + 1,
            use_cache=False,
        ).logits
        return _picked(logits[:, :-1], completions)

    def old_logprobs(self, completions: Any) -> Any:
        """Returns float32[G * n, R]."""
        with torch.no_grad():
            passes = self._passes(len(completions))
            return torch.cat([self.logprobs(i, completions[rows]) for i, rows in passes])

    def _passes(self, total: int) -> list[tuple[int, Any]]:
        """Returns the prompt and the completions of each pass."""
        parts = torch.arange(total).split(self.rows)
        return [(int(rows[0]) // self.n, rows) for rows in parts]

    def update(self, drawn: Drawn) -> float:
        """Makes one clipped update; returns the norm of the gradient."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        for place, rows in self._passes(len(drawn.tokens)):
            new = self.logprobs(place, drawn.tokens[rows])
            ratio = torch.exp(new - drawn.old[rows])
            gain = drawn.advantages[rows][:, None]
            clipped = ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
            loss = -torch.minimum(ratio * gain, clipped * gain).sum() / drawn.tokens.numel()
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.model.eval()
        return float(norm)

    def step(self, advantages: np.ndarray, clock: Callable[[], float]) -> dict[str, float]:
        """Makes a step; returns the seconds of its phases."""
        marks = [clock()]
        tokens = self.rollout()
        self._wait()
        marks.append(clock())
        old = self.old_logprobs(tokens)
        self._wait()
        marks.append(clock())
        gains = torch.from_numpy(advantages).to(self.device)
        self.update(Drawn(tokens, gains, old))
        self._wait()
        marks.append(clock())
        return {
            "rollout": marks[1] - marks[0],
            "log-probs": marks[2] - marks[1],
            "update": marks[3] - marks[2],
        }

    def _wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


class Grouped(Loop):
    """The prompt and its video go through the model once, the completions share them.

    As PrefixGrouper does it (arXiv 2506.05433): in one sequence, a completion sees the prompt and
    itself. Decoding begins with a cache that is computed once and copied.
    """

    def __init__(self, directory: Path, examples: Sequence[Example], **fields: Any) -> None:
        super().__init__(directory, examples, **fields)
        self.rows = self.n  # a group
        self._after = [example.next_position for example in examples]
        self._positions = [
            torch.from_numpy(example.positions.astype(np.int64))[:, None].to(self.device)
            for example in examples
        ]

    def rollout(self) -> Any:
        batch = {
            name: torch.cat([prompt[name] for prompt in self.prompts]) for name in self.prompts[0]
        }
        length = batch["input_ids"].shape[1]
        with torch.no_grad():
            out = self.model(
                **batch,
                attention_mask=torch.ones_like(batch["input_ids"]),
                position_ids=torch.cat(self._positions, 1),
                logits_to_keep=1,
                use_cache=True,
            )
            cache = out.past_key_values
            cache.batch_repeat_interleave(self.n)
            drawn = [self._draw(out.logits[:, -1].repeat_interleave(self.n, 0))]
            first = torch.tensor(self._after, device=self.device).repeat_interleave(self.n)
            for place in range(self.tokens - 1):
                seen = torch.ones(len(first), length + place + 1, device=self.device)
                out = self.model(
                    input_ids=drawn[-1][:, None],
                    attention_mask=seen.long(),
                    position_ids=(first + place).expand(3, -1)[..., None],
                    past_key_values=cache,
                    use_cache=True,
                )
                drawn.append(self._draw(out.logits[:, -1]))
        return torch.stack(drawn, 1)

    def logprobs(self, prompt: int, completions: Any) -> Any:
        batch = dict(self.prompts[prompt])
        length, count = batch["input_ids"].shape[1], completions.numel()
        batch["input_ids"] = torch.cat([batch["input_ids"], completions.reshape(1, -1)], 1)
        zeros = torch.zeros(1, count, dtype=torch.int64, device=self.device)
        batch["mm_token_type_ids"] = torch.cat([batch["mm_token_type_ids"], zeros], 1)
        steps = torch.arange(self.tokens, device=self.device).repeat(self.n)
        after = (self._after[prompt] + steps).expand(3, 1, -1)
        # the prompt's last token predicts the first token of each completion
        before = torch.arange(length - 1, length + count, device=self.device)
        logits = self.model(
            **batch,
            attention_mask=self._mask(length),
            position_ids=torch.cat([self._positions[prompt], after], 2),
            logits_to_keep=before,
            use_cache=False,
        ).logits[0]
        own = logits[1:].unflatten(0, completions.shape)[:, :-1]
        first = logits[0].expand(self.n, 1, -1)
        return _picked(torch.cat([first, own], 1), completions)

    def _mask(self, length: int) -> Any:
        """Returns float[1, 1, L, L]: 0 where a token is seen."""
        total = length + self.n * self.tokens
        place = torch.arange(total, device=self.device)
        row = (place - length).div(self.tokens, rounding_mode="floor").clamp(min=-1)
        seen = (place[:, None] >= place) & ((row[:, None] == row) | (row == -1))
        dtype = self.model.dtype
        return torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)[None, None]

    def _draw(self, logits: Any) -> Any:
        logits = logits.float()
        logits[:, self.banned] = -torch.inf
        return torch.multinomial(logits.softmax(-1), 1)[:, 0]


def _repeated(prompt: dict[str, Any], n: int) -> dict[str, Any]:
    """Returns n copies of a prompt, with a copy of the video each."""
    return {name: torch.cat([value] * n) for name, value in prompt.items()}


def _picked(logits: Any, tokens: Any) -> Any:
    """Returns the log-probabilities of tokens [..., R] under logits [..., R, V]."""
    return logits.float().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
