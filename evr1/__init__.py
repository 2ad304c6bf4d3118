"""Reinforcement learning from verifiable rewards for video-language models, in JAX."""

__version__ = "0.1.0"
