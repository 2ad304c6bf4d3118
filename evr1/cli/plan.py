"""Compiles a config's update and sampler for TPUs that are not there, and says what they need.

    evr1 plan --config=qwen_video --topology=v5p:4x4x4

The programs are those of the run, lowered from shapes and shardings alone: bytes, and what moves
between devices, are the TPU compiler's own. Operations and seconds are arithmetic from shapes and
data sheets, at peak rates, because the compiler counts the body of a loop once: orders of
magnitude, nothing is measured.
Needs libtpu, which is the extra tpu-compiler. With --estimate, and for GPUs
(--topology=gpu:8xH100-80GB), nothing is compiled: temporaries are estimated, in seconds. Exit
status: 0 it fits, 2 it does not, 1 bad input.
"""

import json
import os
import pathlib
import sys

import ml_collections
from absl import flags
from rich.console import Console

from evr1.config import command

VARIABLES = {
    "JAX_PLATFORMS": "cpu",  # compile for the TPU, run nothing on it
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several plans at a time
    "TPU_SKIP_MDS_QUERY": "1",  # no search for a cloud machine's metadata
    "TPU_WORKER_HOSTNAMES": "localhost",  # nor for its neighbours
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",  # of this machine; the topology is a flag
}


def main() -> None:
    """Runs the command; does not return."""
    flags.DEFINE_string(
        "topology", "v5p:4x4x4", "TPU generation and shape of the slice; or gpu:8xH100-80GB."
    )
    flags.DEFINE_string(
        "hf_config",
        "",
        "HF config.json, or a name such as qwen3-vl-8b. Empty: that of the config's model, else "
        "qwen3-vl-8b.",
    )
    flags.DEFINE_list("programs", [], "Which to compile; empty: all.")
    flags.DEFINE_bool("estimate", False, "Compile nothing; what temporaries take is estimated.")
    flags.DEFINE_integer(
        "mean_prompt_tokens", 0, "Of the estimate of seconds; 0: the longest prompt."
    )
    flags.DEFINE_integer(
        "mean_completion_tokens", 0, "Of the estimate of seconds; 0: the completion limit."
    )
    flags.DEFINE_string("json", "", "Also write the plan to this file.")
    command.run(_plan, lambda: "plan: interrupted", __doc__)


def _plan(config: ml_collections.ConfigDict) -> None:
    """Plans and prints; bad input ends in one line and exit status 1."""
    os.environ.update(VARIABLES)
    from evr1.plan import plan  # jax, which reads the variables as it is imported
    from evr1.plan.tables import show

    console = Console(width=None if sys.stdout.isatty() else 110)
    f = flags.FLAGS
    try:
        result = plan.plan(
            config,
            topology=f.topology,
            hf_config=f.hf_config,
            names=f.programs or plan.PROGRAMS,
            mean_tokens=(f.mean_prompt_tokens, f.mean_completion_tokens),
            has_compiler=not f.estimate,
            line=lambda text: console.print(text, soft_wrap=True, highlight=False, markup=False),
        )
    except (ValueError, OSError) as error:
        sys.exit(f"plan: {error}")
    show(result, console)
    if f.json:
        pathlib.Path(f.json).write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(0 if result["fits"] else 2)


if __name__ == "__main__":
    main()
