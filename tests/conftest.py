"""Test settings, made before any backend starts."""

import os

import hypothesis

# Tests compile hundreds of small programs and run each a few times: compile fast, not well.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

import jax  # noqa: E402  it reads the flags when it starts
import jaxtyping  # noqa: E402

# Shapes and types of arguments and results are checked where arrays are computed with.
CHECKED = ("evr1.rl", "evr1.batch", "evr1.sampler", "evr1.models", "evr1.learner")
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # an int is a float
jaxtyping.install_import_hook(CHECKED, CHECKER)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("patient", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("patient")
