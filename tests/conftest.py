"""Test settings, made before any backend starts."""

import gc
import os
import pathlib
import tempfile
from importlib import metadata

import hypothesis
import pytest

# Tests compile hundreds of small programs and run each a few times: compile fast, not well.
FAST = "--xla_backend_optimization_level=0"
if metadata.version("jaxlib").startswith("0.10."):  # later ones have no other emitters
    FAST += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST}"

# Runs that say nothing else keep compiled programs where they are gone after the tests.
CACHE = tempfile.TemporaryDirectory(prefix="evr1-tests-", ignore_cleanup_errors=True)
os.environ["XDG_CACHE_HOME"] = CACHE.name

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

# Longest first, or one of two processes ends alone with them; the Makefile's flag keeps this order.
LONGEST = (
    "test_train.py",
    "test_hosts.py",
    "test_docs_commands.py",
    "test_learning.py",
    "learner/test_update.py",
    "models/test_families.py",
    "models/test_qwen3_5.py",
    "evals/test_job.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest modules first."""

    def place(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return next((i for i, end in enumerate(LONGEST) if path.endswith(end)), len(LONGEST))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Keeps what stays for good out of garbage collection, which else takes seconds at a time."""
    gc.freeze()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Forgets compiled programs after each folder, whose modules share some, and where they are
    many: a process may hold 65,530 memory mappings."""
    if nextitem is None or nextitem.path == item.path:
        return
    maps = pathlib.Path("/proc/self/maps")  # Linux only
    many = maps.exists() and maps.read_bytes().count(b"\n") > 15_000
    if many or nextitem.path.parent != item.path.parent:
        jax.clear_caches()
        gc.collect()
