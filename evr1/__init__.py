"""Reinforcement learning from verifiable rewards for video-language models, in JAX."""

import os

# XLA's own log is of its authors' concern ("Very slow compile? If you want to file a bug ..."):
# its errors are exceptions, too. Set before jax is imported, which would say 1.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = "0.1.0"
