"""Settings of the rewards and of their judge. `base.py` says what each means."""

import dataclasses
import math

from evr1.config import checks
from evr1.config.checks import Section, require

BOX_SCALES = ("pixels", "unit", "thousand")


@dataclasses.dataclass(frozen=True)
class JudgeSettings(Section):
    """`config.rewards.judge`: an LLM that rules on some answers, where a backend is named."""

    backend: str
    types: tuple[str, ...]
    is_graded: bool
    model: str
    url: str
    api_key_env: str
    json_schema: bool
    cache: str
    max_tokens: int
    timeout_s: float
    deadline_s: float
    concurrency: int
    retries: int
    max_prompt_tokens: int
    slots: int

    def check(self) -> None:
        checks.items("rewards.judge.types", self.types, str, "need problem types")
        if not self.backend:
            return
        checks.choice("rewards.judge.backend", self.backend, ("http", "sampler"))
        is_http = self.backend == "http"
        require(
            self.model or not is_http,
            "rewards.judge.model",
            f"is {self.model!r} with rewards.judge.backend={self.backend}",
            "give the model's name at the endpoint",
        )
        require(
            not is_http or self.url.startswith(("http://", "https://")),
            "rewards.judge.url",
            f"is {self.url!r}",
            "give a base URL such as http://localhost:8000/v1",
        )
        require(self.types, "rewards.judge.types", "is empty", "name the problem types to judge")
        checks.positive(
            "rewards.judge",
            self,
            ("max_tokens", "timeout_s", "deadline_s", "concurrency", "max_prompt_tokens", "slots"),
        )
        require(self.retries >= 0, "rewards.judge.retries", f"is {self.retries}", "need 0 or more")

    def check_paths(self) -> None:
        require(
            self.backend != "sampler" or (self.model and checks.is_model(self.model)),
            "rewards.judge.model",
            f"is {self.model!r} with rewards.judge.backend={self.backend}",
            "give a HF or Orbax directory",
        )


@dataclasses.dataclass(frozen=True)
class RewardSettings(Section):
    """`config.rewards`: what a completion earns, and the processes that find out."""

    accuracy_weight: float
    format_weight: float
    box_scale: str
    unknown_type: str
    extra: str
    terms: tuple[tuple[str, float], ...]
    overlong_cache_tokens: int
    repetition_words: int
    workers: int
    timeout_s: float
    max_failed_share: float
    judge: JudgeSettings

    def check(self) -> None:
        checks.choice("rewards.box_scale", self.box_scale, BOX_SCALES)
        total = self.accuracy_weight + self.format_weight
        require(
            min(self.accuracy_weight, self.format_weight) >= 0 and abs(total - 1) < 1e-6,
            "rewards.accuracy_weight + rewards.format_weight",
            f"is {total:g}",
            "two weights of 0 or more that add up to 1",
        )
        checks.positive("rewards", self, ("workers", "repetition_words"))
        checks.timeout("rewards.timeout_s", self.timeout_s)
        checks.share("rewards.max_failed_share", self.max_failed_share)
        self.judge.check()
        self._check_terms()

    def _check_terms(self) -> None:
        for term in self.terms:
            require(
                isinstance(term, tuple)
                and len(term) == 2
                and isinstance(term[0], str)
                and isinstance(term[1], int | float)
                and math.isfinite(term[1]),
                "rewards.terms",
                f"holds {term!r}",
                'give pairs of name and weight, e.g. (("overlong_penalty", 0.5),)',
            )
        names = {name for name, _ in self.terms}
        require(
            len(names) == len(self.terms),
            "rewards.terms",
            f"is {self.terms}",
            "give each term once",
        )

    def check_paths(self) -> None:
        self.judge.check_paths()
