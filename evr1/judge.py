"""The judge of a run: an endpoint, or a model of our own sampled greedily on this run's devices."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import jax

from evr1.config import Config
from evr1.data.processor import Processor
from evr1.data.records import Example, Row
from evr1.models import hf, load_model
from evr1.parallel import sharding
from evr1.rewards.base import Status, Weights
from evr1.rewards.judge import BatchScorer, Judge, Judged
from evr1.rewards.judge_cache import Cached
from evr1.rewards.judge_http import HttpJudge
from evr1.rewards.judge_prompt import Question, Ruling, make_prompt, read_reply
from evr1.sampler import Sampler, Sampling
from evr1.sampler.engine import batch_shards
from evr1.types import ShapeTable

_MIN_ANSWER_CHARS = 200  # a prompt that is too long even then is the row's fault


def with_judge(
    config: Config, scorer: BatchScorer, mesh: jax.sharding.Mesh | None = None
) -> Judged:
    """The scorer with the config's judge behind it, where the config names one.

    Args:
        config: resolved.
        scorer: scores first.
        mesh: devices for a judge that is sampled here; None: the default device.

    Raises:
        ValueError: the judge's directory, address, key or problem types cannot be used.
    """
    r, j = config.rewards, config.rewards.judge
    if not j.backend:
        return Judged(scorer, None)
    judge: Judge = (
        HttpJudge(
            j.url,
            j.model,
            api_key_env=j.api_key_env,
            max_tokens=j.max_tokens,
            json_schema=j.json_schema,
            timeout_s=j.timeout_s,
            deadline_s=j.deadline_s,
            concurrency=j.concurrency,
            retries=j.retries,
        )
        if j.backend == "http"
        else SamplerJudge(
            j.model,
            dtype=config.train.dtype,
            max_tokens=j.max_tokens,
            max_prompt_tokens=j.max_prompt_tokens,
            slots=j.slots,
            mesh=mesh,
        )
    )
    judge = Cached(judge, Path(j.cache)) if j.cache else judge
    weights = Weights(r.accuracy_weight, r.format_weight)
    return Judged(scorer, judge, tuple(j.types), weights, j.is_graded)


class SamplerJudge:
    """Asks a model of a HF or Orbax directory, greedily."""

    def __init__(
        self,
        directory: str,
        *,
        dtype: str = "bfloat16",
        max_tokens: int = 256,
        max_prompt_tokens: int = 8192,
        slots: int = 16,
        mesh: jax.sharding.Mesh | None = None,
    ) -> None:
        """Reads the model.

        Args:
            directory: HF directory, or one of tools/convert_checkpoint.py.
            dtype: of the parameters and the computation.
            max_tokens: of a reply.
            max_prompt_tokens: longer prompts have their answer cut until they fit.
            slots: questions that decode at the same time.
            mesh: devices to spread the model over; None: the default device.

        Raises:
            ValueError: the directory is no model that evr1 knows.
        """
        self._identity = _identity(directory)
        self._processor = Processor.from_hf(str(hf.side_dir(directory)))
        self._model = load_model(directory, dtype=dtype, remat=False)
        places = mesh and sharding.param_shardings(mesh, self._model.abstract_params())
        self._params = hf.load_params(directory, self._model, shardings=places, dtype=dtype)
        self._max_prompt_tokens = max_prompt_tokens
        shards = batch_shards(mesh)
        self._sampler = Sampler(
            self._model,
            shapes=ShapeTable(
                prompt_tokens=_buckets(max_prompt_tokens),
                vision_rows=(0,),
                row_patches=self._processor.geometry.merge_size**2,
                completion_tokens=max_tokens,
            ),
            geometry=self._processor.geometry,
            pos_grid=1,
            n=1,
            slots=-(-slots // shards) * shards,
            window=min(16, max_tokens),
            pad_id=self._processor.pad_id,
            mesh=mesh,
        )
        self._sampling = Sampling(
            temperature=0.0,
            max_tokens=max_tokens,
            end_ids=self._processor.end_ids,
            banned_ids=self._processor.banned_ids,
        )

    @property
    def identity(self) -> str:
        """The model directory's content, by the sizes and times of its files."""
        return self._identity

    def __call__(self, questions: Sequence[Question]) -> list[Ruling]:
        """One ruling for each question, in order."""
        examples = [self.encode(question) for question in questions]
        fit = [i for i, e in enumerate(examples) if len(e.tokens) <= self._max_prompt_tokens]
        rulings = [
            Ruling(
                Status.ERROR,
                reason=f"a prompt of {len(e.tokens)} tokens with the answer cut is over "
                f"max_prompt_tokens={self._max_prompt_tokens}; raise it or shorten the row",
            )
            for e in examples
        ]
        rollouts = self._sampler.generate(
            self._params, [examples[i] for i in fit], fit, self._sampling
        )
        for at, i in enumerate(fit):
            tokens = rollouts.completions[at, 0, : rollouts.lengths[at, 0]].tolist()
            ruling = read_reply(self._processor.decode(tokens), questions[i].is_graded)
            rulings[i] = ruling
        return rulings

    def encode(self, question: Question) -> Example:
        """The question as a prompt; its answer is halved until the prompt fits."""
        while True:
            text = without_special_tokens(make_prompt(question), self._processor)
            example = self._processor.encode(_row(text), [], raw=True)
            if (
                len(example.tokens) <= self._max_prompt_tokens
                or len(question.answer) < 2 * _MIN_ANSWER_CHARS
            ):
                return example
            question = question._replace(answer=question.answer[: len(question.answer) // 2])


def without_special_tokens(text: str, processor: Processor) -> str:
    """The text with a space inside of whatever the tokenizer would read as one added token.

    The prompt's own cleaning knows how such tokens are usually written; this knows the tokenizer.
    """
    added = [t.content for t in processor.tokenizer.get_added_tokens_decoder().values()]
    for token in (t for t in added if len(t) > 1 and not t.isspace()):
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def _row(text: str) -> Row:
    """A row without media that asks a text as it is."""
    return Row(
        index=0,
        problem=text,
        answer="",
        problem_type="open-ended",
        data_type="text",
        images=(),
        videos=(),
        options=(),
        problem_id="judge",
        video_start=None,
        video_end=None,
        source="judge",
        extra={},
    )


def _buckets(limit: int) -> tuple[int, ...]:
    """Prompt lengths: powers of two from 512, and the limit.

    >>> _buckets(3000)
    (512, 1024, 2048, 3000)
    """
    powers = [2**k for k in range(9, 31) if 2**k < limit]
    return (*powers, limit)


def _identity(directory: str) -> str:
    root = Path(directory)
    files = sorted(file for file in root.rglob("*") if file.is_file())
    stats = [(str(f.relative_to(root)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return f"model {hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:32]}"
