"""Drawing completions: n for each prompt, the prompt's cache shared by all of them."""

from evr1.sampler.driver import Sampler
from evr1.sampler.engine import DecodeState, Engine, Prefix, ResultTokens
from evr1.sampler.groups import Stats
from evr1.sampler.sampling import Sampling

__all__ = ["DecodeState", "Engine", "Prefix", "ResultTokens", "Sampler", "Sampling", "Stats"]
