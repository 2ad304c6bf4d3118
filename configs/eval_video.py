"""Benchmarks as a job: `evr1 evaluate --config=eval_video`.

--config.model=DIR --config.workdir=DIR --config.tasks='("lvbench",)' --config.data_dir=DIR
evr1/config/evals.py has every field.
"""

from evr1.config import evals


def get_config():
    """Returns the config of all built-in benchmarks."""
    c = evals.get_config()
    c.tasks = ("all",)
    return c
