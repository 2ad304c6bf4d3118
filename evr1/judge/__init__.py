"""LLM judges behind the scorers: an endpoint, or a model of our own."""

from pathlib import Path

import jax

from evr1.config import RewardSettings
from evr1.judge.sampled import SampledChat, SamplerJudge, identity_of
from evr1.rewards.base import Weights
from evr1.rewards.judging.judge import BatchScorer, Judge, Judged
from evr1.rewards.judging.judge_cache import Cached
from evr1.rewards.judging.judge_http import HttpJudge


def with_judge(
    settings: RewardSettings,
    scorer: BatchScorer,
    dtype: str,
    mesh: jax.sharding.Mesh | None = None,
) -> Judged:
    """Returns the scorer with the config's judge behind it, where the config names one.

    Args:
        settings: of the rewards.
        scorer: scores first.
        dtype: of the computation of a judge that is sampled here.
        mesh: its devices; None: the default device.

    Raises:
        ValueError: the judge's directory, address, key or problem types cannot be used.
    """
    j = settings.judge
    if not j.backend:
        return Judged(scorer, None)
    judge: Judge
    if j.backend == "http":
        judge = HttpJudge(
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
    else:
        judge = SamplerJudge(j, dtype, mesh)
    judge = Cached(judge, Path(j.cache)) if j.cache else judge
    weights = Weights(settings.accuracy_weight, settings.format_weight)
    return Judged(scorer, judge, tuple(j.types), weights, j.is_graded)


__all__ = ["SampledChat", "SamplerJudge", "identity_of", "with_judge"]
