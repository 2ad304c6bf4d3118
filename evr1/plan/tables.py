"""A plan as tables."""

from typing import Any

from rich.console import Console
from rich.table import Table

from evr1.plan.phases import GIB


def show(result: dict[str, Any], console: Console) -> None:
    """Prints a plan: memory, collectives, the phases of a step, what is wrong, what to do."""

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    say(f"GiB a device, {result['source']}")
    console.print(_memory(result["programs"]))
    if any(p["collectives"] or p["in_loop"] for p in result["programs"]):
        say("What a device receives from others, MiB; by the TPU compiler")
        console.print(_collectives(result["programs"]))
    say("An RL step at the chips' peak rates, by arithmetic; nothing is measured")
    console.print(_phases(result))
    say(
        f"at {result['mean_prompt_tokens']:,} prompt and {result['mean_completion_tokens']:,} "
        "completion tokens in the mean; activations, launches and padding not counted. ICI: the "
        "collectives of the compiled programs; with a * weights gathered at every use (the "
        "compiler may move activations instead)"
    )
    step = result["step"]
    say(
        f"decoding is {step['decode_share']:.0%} of the step; MFU of the step at peak rates "
        f"{step['mfu']:.1%}, recomputation not counted"
    )
    for problem in result["problems"]:
        say(f"✗ {problem}")
    for line in result["advice"]:
        say(f"→ {line}")


def _table(first: str, *columns: str) -> Table:
    table = Table()
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _memory(programs: list[dict[str, Any]]) -> Table:
    columns = ("arguments", "outputs", "temporaries", "beside it", "total", "limit", "fits")
    table = _table("program", *columns, "on host", "calls host")
    for p in programs:
        parts = (p[k] / GIB for k in ("arguments", "outputs", "temporaries", "beside", "total"))
        table.add_row(
            p["name"],
            *(f"{x:.2f}" for x in parts),
            f"{p['limit'] / GIB:.2f}",
            "✓" if p["fits"] else "✗",
            f"{p['host'] / GIB:.2f}",
            "✗ calls" if p["host_calls"] else "✓ none",
        )
    return table


def _collectives(programs: list[dict[str, Any]]) -> Table:
    table = _table("program", "collective", "executions", "MiB")
    for p in programs:
        for when, kinds in (("a run", p["collectives"]), ("a token", p["in_loop"])):
            for kind, (times, size) in sorted(kinds.items(), key=lambda x: -x[1][1]):
                mib = f"{size / 2**20:,.2f}"
                table.add_row(p["name"], kind, f"{times} {when}", mib)
    return table


def _phases(result: dict[str, Any]) -> Table:
    table = _table("phase", "PFLOP", "compute s", "HBM s", "ICI s", "bound by", "s")
    for p in result["phases"]:
        seconds = p["seconds"]
        bound = max(seconds, key=seconds.get)
        mark = "" if p["is_compiled"] or not p["ici"] else "*"
        table.add_row(
            p["name"],
            f"{p['flops'] / 1e15:,.1f}",
            f"{seconds['compute']:,.2f}",
            f"{seconds['hbm']:,.2f}",
            f"{seconds['ici']:,.2f}{mark}",
            bound,
            f"{seconds[bound]:,.2f}",
        )
    table.add_row("step", *[""] * 5, f"{result['step']['seconds']:,.2f}")
    return table
