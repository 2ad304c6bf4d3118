"""What a compiled program moves between devices, read from its text.

    records = collectives(compiled.as_text(), devices=64)

A collective in a loop counts once a turn. XLA knows the turns of a loop over layers; it does not
know when a decode window ends, so what stands in one is counted a token (`in_open_loop`).
"""

import dataclasses
import math
import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
# A decode step that receives more of its weights than this share of them gathers weights: the
# rest may be a norm, or an activation that happens to have as many values as a matrix.
WEIGHT_SHARE = 0.05

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)")
_ARRAY = re.compile(r"\b(pred|bf16|[suf]\d+)(?:e\d\w*)?\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply|\w+_computations?)=\{?(%?[\w.\-]+(?:, ?%?[\w.\-]+)*)")


class Array(NamedTuple):
    """A result of a collective on one device."""

    values: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective of a program.

    Attributes:
        kind: of KINDS.
        arrays: its results, on one device.
        devices: that take part together.
        times: executions; in an open loop those of one turn.
        in_open_loop: it stands in a loop whose turns are not known.
        source: the operation that it was made for.
    """

    kind: str
    arrays: tuple[Array, ...]
    devices: int
    times: int
    in_open_loop: bool
    source: str

    @property
    def received(self) -> float:
        """Bytes that a device receives, all times together, in a ring."""
        size, n = sum(a.bytes for a in self.arrays), max(self.devices, 1)
        share = {
            "all-reduce": 2 * (n - 1) / n,
            "reduce-scatter": n - 1,
            "collective-permute": 1,
            "collective-broadcast": 1,
        }
        return self.times * size * share.get(self.kind, (n - 1) / n)


class Instruction(NamedTuple):
    """A line of a computation."""

    name: str
    shape: str
    kind: str
    rest: str


def collectives(text: str, devices: int) -> list[Collective]:
    """Returns the collectives of a compiled program (`Compiled.as_text()`).

    Args:
        text: of the optimised HLO module.
        devices: of the program, for collectives that name no groups.

    Raises:
        ValueError: the text is not of an HLO module.
    """
    computations, entry = _computations(text)
    found: dict[tuple, Collective] = {}
    for at, (line, times, is_open) in enumerate(_reached(computations, entry, (), 1, False)):
        instruction, path = line
        kind = instruction.kind.removesuffix("-start")
        channel = re.search(r"channel_id=(\d+)", instruction.rest)
        # A collective that runs beside products is written once in each of its pieces.
        key = (path, channel[1] if channel else at, kind)
        source = re.search(r'op_name="([^"]*)"', instruction.rest)
        found[key] = Collective(
            kind,
            _results(instruction),
            _group_size(instruction.rest, devices),
            times,
            is_open,
            source[1] if source else "",
        )
    return list(found.values())


def totals(records: Sequence[Collective]) -> dict[str, tuple[int, float]]:
    """Returns executions and received bytes of each kind, those that occur alone."""
    out: dict[str, tuple[int, float]] = {}
    for r in records:
        times, size = out.get(r.kind, (0, 0.0))
        out[r.kind] = (times + r.times, size + r.received)
    return out


def weights_received(records: Sequence[Collective], sizes: Collection[int]) -> float:
    """Returns the bytes received in arrays that are as large as a weight, or as a part of one.

    Sums (all-reduce, reduce-scatter) bring none, but activations or gradients: rows after a product
    that is cut over its inner axis may well have as many values as a part of a matrix.

    Args:
        records: of a program.
        sizes: values of each weight as a device may hold it: whole, or cut.
    """
    total = 0.0
    for r in records:
        size = sum(a.bytes for a in r.arrays)
        if size and r.kind not in ("all-reduce", "reduce-scatter"):
            total += r.received * sum(a.bytes for a in r.arrays if a.values in sizes) / size
    return total


def _computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Returns the instructions of each computation, and the name of the first to run."""
    out: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head:
            current = out.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line == "}" or line.startswith("}, execution_thread"):  # a kernel's text has }} too
            current = None
        elif current is not None and (found := _INSTRUCTION.match(line.strip())):
            current.append(Instruction(*found.groups()))
    if not entry:
        raise ValueError("no ENTRY computation: this is not the text of an HLO module")
    return out, entry


def _reached(
    computations: dict[str, list[Instruction]], name: str, path: tuple, times: int, is_open: bool
) -> Iterator[tuple[tuple[Instruction, tuple], int, bool]]:
    """Yields the collectives that running a computation starts, with the loops that they are in."""
    for line in computations.get(name, ()):
        if line.kind.removesuffix("-start") in KINDS:
            yield (line, path), times, is_open
        if line.kind != "while":
            for called in _names(line.rest):
                yield from _reached(computations, called, path, times, is_open)
            continue
        loop = re.search(r"body=%?([\w.\-]+)", line.rest)
        assert loop is not None, line.name
        turns = _turns(line, computations)
        inside = (*path, line.name)
        inner = (turns or 1) * times
        yield from _reached(computations, loop[1], inside, inner, is_open or turns is None)


def _names(rest: str) -> list[str]:
    return [n.lstrip("%") for group in _CALLED.findall(rest) for n in re.split(r", ?", group)]


def _turns(loop: Instruction, computations: dict[str, list[Instruction]]) -> int | None:
    """Returns how often a loop runs, where XLA says it or the condition is `i < number`.

    `i` starts at 0, as that of a scan does; of a loop whose first turn stands before it one turn
    is counted twice.
    """
    known = re.search(r'known_trip_count\D{1,12}"(\d+)"', loop.rest)
    if known:
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
    lines = computations.get(condition[1], []) if condition else []
    constants = {x.name: x.rest.split(")")[0] for x in lines if x.kind == "constant"}
    last = lines[-1] if lines else None
    if last is None or last.kind != "compare" or "direction=LT" not in last.rest:
        return None
    limit = re.match(r"[^,]*, (?:\S+ )?%?([\w.\-]+)\)", last.rest)
    number = constants.get(limit[1], "") if limit else ""
    return int(number) if number.isdigit() else None


def _results(line: Instruction) -> tuple[Array, ...]:
    """Returns the result arrays of a collective; a started one also lists its operands."""
    arrays = tuple(_array(*x) for x in _ARRAY.findall(line.shape))
    if not line.kind.endswith("-start") or line.kind == "all-reduce-start":
        return arrays
    if line.kind == "all-gather-start":  # (operands, results)
        return arrays[len(arrays) // 2 :]
    return arrays[1:2]  # (operand, result, two counters)


def _array(kind: str, dims: str) -> Array:
    bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind))
    values = math.prod(int(d) for d in dims.split(",") if d)
    return Array(values, values * bits // 8)


def _group_size(rest: str, devices: int) -> int:
    """Returns how many devices take part together.

    Groups are written as {{0,1},{2,3}}, as [groups,size]<=[...], or by axes of a mesh.
    """
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return found[1].count(",") + 1
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest):
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        named = re.findall(r"'(\w+)'", found[2])
        return math.prod(int(sizes[name]) for name in named if name in sizes)
    return devices
