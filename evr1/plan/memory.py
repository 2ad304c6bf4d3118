"""What a compiler says of a program: bytes a device, and collectives. `plan.py` prints it."""

import dataclasses
import math
import re
import time
from typing import Any

import jax

from evr1.learner.programs import Program, bytes_of
from evr1.plan.collectives import Collective, collectives, totals, weights_received
from evr1.plan.phases import Chip

# What would make the device wait for the host in the middle of a program.
HOST_CALL = re.compile(r"callback|infeed|outfeed|host_transfer", re.IGNORECASE)
# Over the limit by less is not over: a counter beside a program that fills the chip.
MARGIN = 2**20
_SIZE = r"([\d.]+)([KMG]?)B?"
# libtpu's two ways to say it. Both count the arguments, though the second speaks of temporaries:
# it has 17 GiB for a program of 13 and 4.
USED = re.compile(rf"Used {_SIZE} of {_SIZE} hbm")
TEMPORARIES = re.compile(
    rf"memory required for HLO temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)"
)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of a program, in bytes a device.

    Attributes:
        arguments: donated ones included.
        outputs: those that do not take over an argument's memory.
        temporaries: of the program, its code included.
        beside: what stays on the device and is no argument.
        total: all of it. Where the program did not fit, outputs, and sometimes temporaries, are
            not known and 0.
        limit: the chip's memory, as far as the compiler hands it out.
        host: bytes in the host's memory, arguments included.
        host_calls: whether the program calls back to the host.
        collectives: kind -> executions, and bytes that a device receives, of one execution.
        in_loop: the same of one turn of a loop without a known end: of a decoded token.
        weights: bytes of weights that a device receives in such a turn.
        is_compiled: a compiler has said all this; else it is an estimate.
    """

    name: str
    arguments: int
    outputs: int
    temporaries: int
    beside: int
    total: int
    limit: int
    host: int
    host_calls: bool
    collectives: dict[str, tuple[int, float]]
    in_loop: dict[str, tuple[int, float]]
    weights: float
    compile_s: float
    is_compiled: bool = True

    @property
    def fits(self) -> bool:
        """Whether a device holds it."""
        return self.total <= self.limit + MARGIN


def compile_program(program: Program, chip: Chip) -> Compiled:
    """Compiles and measures; a program that does not fit is a result, not an error.

    Raises:
        ValueError: the compiler refuses it for another reason than memory.
    """
    begun = time.perf_counter()
    arguments, sizes = bytes_of(arrays(program.arguments)), weight_sizes(program)
    lowered = program.lower()
    host_calls = bool(HOST_CALL.search(lowered.as_text()))
    host, records, limit = 0, [], int(chip.hbm)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        parts, limit = out_of_memory(program.name, error, arguments)
    else:
        memory = compiled.memory_analysis()
        assert memory is not None  # every TPU compiler has it
        parts = (
            memory.argument_size_in_bytes,
            memory.output_size_in_bytes - memory.alias_size_in_bytes,
            memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
        )
        host = memory.host_argument_size_in_bytes + memory.host_temp_size_in_bytes
        if memory.host_temp_size_in_bytes:
            # libtpu counts some of what it keeps on the host as temporaries of the device too; as
            # it has compiled, they are no more than what the chip has left.
            parts = (*parts[:2], min(parts[2], limit - parts[0] - parts[1]))
        records = collectives(compiled.as_text() or "", program.mesh.size)
    inside: list[Collective] = [r for r in records if r.in_open_loop]
    return Compiled(
        program.name,
        *parts,
        program.beside,
        sum(parts) + program.beside,
        limit,
        host,
        host_calls,
        totals([r for r in records if not r.in_open_loop]),
        totals(inside),
        weights_received(inside, sizes),
        time.perf_counter() - begun,
    )


def out_of_memory(name: str, error: Exception, arguments: int) -> tuple[tuple[int, int, int], int]:
    """Returns (arguments, outputs, temporaries) of a program that did not fit, and the limit.

    Args:
        name: of the program.
        error: what the compiler raised.
        arguments: its bytes a device.

    Raises:
        ValueError: the error is not about the chip's memory.
    """
    text = str(error)
    if found := USED.search(text) or TEMPORARIES.search(text):
        need, limit = scaled(*found.groups()[:2]), scaled(*found.groups()[2:])
        return (arguments, 0, max(need - arguments, 0)), limit
    line = " ".join(text.split())[:300]
    raise ValueError(f"the compiler refuses {name}: {line}") from error


def weight_sizes(program: Program) -> set[int]:
    """Returns how many values the weights have that a program of the sampler is given.

    Each of them whole and as a device holds it, of one layer and of all layers.
    """
    if program.name != "decode":
        return set()
    shapes = [(x.shape, x.sharding.shard_shape(x.shape)) for x in arrays(program.arguments[1])]
    matrices = [shape for pair in shapes for shape in pair if len(shape) > 1]
    return {math.prod(s) for s in matrices} | {math.prod(s[1:]) for s in matrices if len(s) > 2}


def scaled(number: str, unit: str) -> int:
    """Returns the bytes of "34.67" and "G"."""
    return int(float(number) * 2 ** {"": 0, "K": 10, "M": 20, "G": 30}[unit])


def arrays(tree: Any) -> list[jax.ShapeDtypeStruct]:
    return [x for x in jax.tree.leaves(tree) if isinstance(x, jax.ShapeDtypeStruct)]
