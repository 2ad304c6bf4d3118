"""Plans the recipes of configs/recipes for their slices, one after the other, and makes the table.

    python tools/plan_recipes.py --out=plans               # all: hours
    python tools/plan_recipes.py --out=plans --only=qwen3_vl_8b:v6e-64,qwen3_vl_4b
    python tools/plan_recipes.py --out=plans --estimate    # nothing compiled: minutes
    python tools/plan_recipes.py --out=plans --table       # plans nothing: those that are there

Each is a run of tools/plan.py; what it says goes to OUT/RECIPE_SLICE.txt, the plan to .json beside
it (.estimate.txt, .estimate.json where nothing was compiled). Running it again goes on with what is
not there. Exit status: 0 all fit, 2 some do not, 1 bad input.
"""

import argparse
import functools
import importlib
import json
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tpu")]

from slices import find_slice  # noqa: E402  tpu/ is a folder of scripts

GIB = 2**30


class Recipe(NamedTuple):
    """A recipe on one of its slices."""

    name: str  # of the file
    slice: str  # an accelerator type, or GPUs of one machine
    sizes: str  # of the model, in evr1/assets/plan/

    @property
    def is_gpu(self) -> bool:
        """Whether it runs on GPUs."""
        return "x" in self.slice

    @property
    def topology(self) -> str:
        """As `tools/plan.py` takes it."""
        return f"gpu:{self.slice}" if self.is_gpu else find_slice(self.slice).plan

    def __str__(self) -> str:
        """As the command line has it."""
        return f"{self.name}:{self.slice}"

    @property
    def file(self) -> str:
        """Of its plan, without a suffix."""
        return f"{self.name}_{self.slice}"

    def command(self) -> list[str]:
        """Returns the plan's command, from the root of the repository."""
        config = f"--config=configs/recipes/{self}"
        sizes = f"--hf_config={self.sizes}"
        return ["tools/plan.py", config.replace(":", ".py:"), f"--topology={self.topology}", sizes]


@functools.cache
def recipes() -> tuple[Recipe, ...]:
    """Returns every recipe on every slice."""
    found = []
    for path in sorted((ROOT / "configs" / "recipes").glob("[!_]*.py")):
        module = importlib.import_module(f"configs.recipes.{path.stem}")
        found += [Recipe(path.stem, name, module.SIZES) for name in module.SLICES]
    return tuple(found)


def chosen(only: str) -> list[Recipe]:
    """Returns the recipes of the flag --only; empty: all.

    Raises:
        ValueError: there is no such recipe.
    """
    names = [name for name in only.split(",") if name]
    for name in names:
        if not any(name in (str(r), r.name) for r in recipes()):
            known = ", ".join(str(r) for r in recipes() if r.name == name.split(":")[0])
            known = known or ", ".join(dict.fromkeys(r.name for r in recipes()))
            raise ValueError(f"--only={name}: no such recipe; there is {known}")
    return [r for r in recipes() if not names or {str(r), r.name} & set(names)]


def plan(recipe: Recipe, out: pathlib.Path, *, is_estimate: bool) -> bool:
    """Plans a recipe unless that is done, and returns whether it fits.

    Raises:
        ValueError: the plan refuses it.
    """
    end = ".estimate" if is_estimate or recipe.is_gpu else ""
    path = out / f"{recipe.file}{end}.json"
    if not path.is_file():
        command = [*recipe.command(), *(["--estimate"] if is_estimate else [])]
        print(f"{recipe}: {'by arithmetic' if end else 'compiles, for minutes'}", flush=True)
        partial, said = path.with_suffix(".partial"), path.with_suffix(".txt")
        run = [sys.executable, *command, f"--json={partial.resolve()}"]
        with said.open("w") as file:
            file.write(f"$ python {' '.join(command)}\n")
            file.flush()
            subprocess.run(run, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        if not partial.is_file():
            raise ValueError(f"{recipe}: {said.read_text().strip().splitlines()[-1]}")
        partial.rename(path)
    return json.loads(path.read_text())["fits"]


def read(recipe: Recipe, out: pathlib.Path) -> dict[str, Any] | None:
    """Returns the plan of a recipe, the compiled one where it is there; None: there is none."""
    for end in ("", ".estimate"):
        path = out / f"{recipe.file}{end}.json"
        if path.is_file():
            return json.loads(path.read_text())
    return None


def cells(plan: dict[str, Any]) -> dict[str, str]:
    """Returns what a plan says, in GiB a chip and seconds of a step, by column."""
    programs = plan["programs"]
    largest = max(programs, key=lambda p: p["total"])
    decode = next(p for p in plan["phases"] if p["name"] == "decode")
    # What was compiled to fill the chip is a counter over it.
    totals = {p["name"]: min(p["total"], p["limit"] if p["fits"] else p["total"]) for p in programs}
    found = {str(name): f"{total / GIB:.1f}" for name, total in totals.items()}
    limit = f"{largest['limit'] / GIB:.1f}"
    return found | {
        "chips": str(plan["devices"]),
        "slots": str(plan["load"]["slots"]),
        "of": limit,
        "largest program": f"{largest['name']} {found[largest['name']]} of {limit}",
        "fits": "yes" if plan["fits"] else "no",
        "decode s": f"{max(decode['seconds'].values()):,.0f}",
        "step s": f"{plan['step']['seconds']:,.0f}",
        "share": f"{plan['step']['decode_share']:.0%}",
        "MFU": f"{plan['step']['mfu']:.0%}",
        "by": "compiler" if plan["programs"][0]["is_compiled"] else "arithmetic",
    }


def table(out: pathlib.Path, which: list[Recipe]) -> str:
    """Returns the plans that are there in Markdown."""
    head = ("chips", "slots", "largest program", "fits", "decode s", "step s", "share", "MFU", "by")
    lines = [["recipe", "slice", *head], ["---"] * 2 + ["---:"] * len(head)]
    for recipe in which:
        plan = read(recipe, out)
        found = cells(plan) if plan else {"largest program": "not planned"}
        names = [f"`{recipe.name}`", f"`{recipe.slice}`"]
        lines.append(names + [found.get(name, "") for name in head])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def header(out: pathlib.Path, which: list[Recipe]) -> str:
    """Returns the plans that are there as the docstrings of the recipes have them."""
    memory = ("prefill", "decode", "logprobs", "gradient", "optimizer", "of")
    head = {name: max(len(name), 4) + 1 for name in (*memory, "decode s", "step s", "MFU")}
    head |= {"of": 6, "by": 11}
    text = ""
    for name in dict.fromkeys(r.name for r in which):
        columns = "".join(f"{column:>{width}}" for column, width in head.items())
        text += f"\n{name}\n    {'slice':12}{columns}\n"
        for recipe in (r for r in which if r.name == name):
            plan = read(recipe, out)
            found = cells(plan) if plan else {"by": "not planned"}
            columns = "".join(
                f"{found.get(column, '-'):>{width}}" for column, width in head.items()
            )
            text += f"    {recipe.slice:12}{columns}\n"
    return text


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder of the plans")
    parser.add_argument("--only", default="", help="RECIPE or RECIPE:SLICE, several by commas")
    parser.add_argument("--estimate", action="store_true", help="compile nothing")
    parser.add_argument("--table", action="store_true", help="print the table, plan nothing")
    flags = parser.parse_args(argv)
    try:
        which = chosen(flags.only)
        if flags.table:
            print(table(flags.out, which), header(flags.out, which), sep="\n")
            return 0
        flags.out.mkdir(parents=True, exist_ok=True)
        fit = [plan(r, flags.out, is_estimate=flags.estimate) for r in which]
    except (ValueError, OSError) as error:
        print(f"plan_recipes: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("plan_recipes: interrupted; run it again to go on", file=sys.stderr)
        return 130
    print(table(flags.out, which), header(flags.out, which), sep="\n")
    return 0 if all(fit) else 2


if __name__ == "__main__":
    sys.exit(main())
