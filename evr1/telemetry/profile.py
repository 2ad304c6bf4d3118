"""A trace of a few steps, for TensorBoard and Perfetto."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from evr1.parallel import hosts

_PHASE = "profile"


def traced(
    steps: range,
    count: int,
    folder: Path,
    say: Callable[[str], None],
    phase: Callable[[str], contextlib.AbstractContextManager[None]],
) -> Iterator[int]:
    """Yields the steps, and records a trace of what happens in some of them.

    Of a process's steps the first one compiles: the trace begins with the second, if there is one.
    Phases of `PhaseTimer` and parts of the sampler are named in it, as is each step. One host, the
    first, writes.

    Args:
        steps: RL steps that are done before each of them.
        count: steps to record; 0: none.
        folder: of traces; a new one gets a folder of its own there.
        say: prints a line.
        phase: counts the seconds that beginning and writing the trace take, see `PhaseTimer`.
    """
    count = count if hosts.is_primary() else 0
    recorded = steps[min(1, len(steps) - 1) :][:count]
    with contextlib.ExitStack() as stack:
        for step in steps:
            if recorded and step == recorded[0]:
                with phase(_PHASE):
                    stack.enter_context(_trace(folder))
            with jax.profiler.StepTraceAnnotation("step", step_num=step + 1):
                yield step
            if recorded and step == recorded[-1]:
                with phase(_PHASE):
                    stack.close()
                say(f"trace of {_named(recorded)}: {newest(folder)}")


def _named(steps: range) -> str:
    """Returns the steps in words.

    >>> _named(range(1, 2)), _named(range(1, 3))
    ('step 2', 'steps 2 to 3')
    """
    first, last = steps[0] + 1, steps[-1] + 1
    return f"step {first}" if first == last else f"steps {first} to {last}"


def newest(folder: Path) -> Path:
    """Returns the file of the newest trace below the folder, as Perfetto opens it."""
    return max(folder.glob("plugins/profile/*/perfetto_trace.json.gz"))


def _trace(folder: Path) -> contextlib.AbstractContextManager[None]:
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # every call of a Python function hides the rest, and costs
    return jax.profiler.trace(folder, create_perfetto_trace=True, profiler_options=options)
