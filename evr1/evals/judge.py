"""The command `judge`: a judge rules on the answers of a run that rules leave to one.

What it replies is appended to `judgements.jsonl` of the run as it comes. The same command goes on:
a prompt with a reply that can be read is never asked again, one that failed is.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from evr1.evals import judgements, samples
from evr1.evals.asking import Docket, find_questions
from evr1.evals.judgements import Said
from evr1.parallel import leaving
from evr1.rewards.judging.chat import Chat
from evr1.rewards.judging.endpoint import Endpoint

KEPT = "what is judged is kept, the same command goes on"  # at an interrupt
_SHOWN = 5  # reasons of failures
_SEPARATORS = "@,"  # they stand in the names of scores
_TIMEOUT_S = 300.0  # of a request


def add_command(commands: Any) -> None:
    """Adds `judge` to the commands."""
    command = commands.add_parser("judge", help="ask a judge about the answers of a run")
    add = command.add_argument
    add("run_dir", metavar="RUN", help="folder with samples_*.jsonl")
    add("--judge", required=True, metavar="URL_OR_DIR", help="base URL of an endpoint, or a model")
    add("--model", default="", help="name of the model (of a directory: its own)")
    add("--tasks", default="", help="some of the run, e.g. mmvu,vcr_bench (default: all)")
    add("--profiles", default="", help="some that ask a judge, e.g. evr1 (default: all)")
    add("--limit", type=int, help="prompts to ask at most in this call; 0: only count them")
    add("--max-tokens", type=int, default=2048, help="of a reply (default 2048)")
    add("--api-key-env", default="", help="environment variable that holds the endpoint's key")
    add("--concurrency", type=int, default=16, help="prompts at a time (default 16)")
    add("--max-prompt-tokens", type=int, default=16384, help="of a model's prompt (default 16384)")
    add("--dtype", default="bfloat16", choices=("bfloat16", "float32"), help="of a model")
    add("--mesh", default="", help="a model's devices, e.g. tensor=4 (default: one device)")
    command.set_defaults(run=run)


def run(flags: argparse.Namespace) -> None:
    """Asks the judge, and tells what is left.

    Raises:
        ValueError: the judge cannot be used, or some prompts have no reply that can be read.
    """
    folder = Path(flags.run_dir)
    if flags.limit is not None and flags.limit < 0:
        raise ValueError(f"--limit {flags.limit}; give 0 or more")
    for name in ("max_tokens", "concurrency", "max_prompt_tokens"):
        if getattr(flags, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(flags, name)}; give 1 or more")
    judge = _judge_of(flags)
    read = samples.read_run(folder)
    questions = find_questions(read, _listed(flags.tasks), _listed(flags.profiles))
    with judgements.Writer(folder / judgements.NAME) as out:
        judged = judgements.read(folder)  # anew, now that nobody else writes it
        said = judged.setdefault(judge.name, Said(judge.model, {}))
        if said.model != judge.model:
            raise ValueError(
                f"{folder} has judgements of another {judge.name} ({said.model}, not "
                f"{judge.model}); give this one another name by --model"
            )
        docket = Docket(questions, judge.name, said)
        _tell(docket, judge.name)
        if flags.limit == 0 or not docket.is_open:
            return
        with leaving.watching(lambda: leaving.Next(KEPT)):
            asked, failures = docket.ask(judge.open(), out.append, flags.limit)
    _tell(docket, judge.name)
    for reason, count in failures.most_common(_SHOWN):
        print(f"{count} x {reason}")
    if failures:
        raise ValueError(
            f"{failures.total()} of {asked} prompts have no reply that can be read; the same "
            "command asks them again"
        )


def _tell(docket: Docket, name: str) -> None:
    counts = docket.counts()
    if not counts:
        print("no response waits for a judge")
    for (task, profile), (judged, total) in counts.items():
        print(f"{task}, {profile}@{name}: {judged} of {total} responses judged")


class _Judge(NamedTuple):
    """A judge that was not opened yet."""

    name: str
    model: str
    open: Callable[[], Chat]


def _judge_of(flags: argparse.Namespace) -> _Judge:
    """Returns the judge that the flags name.

    Raises:
        ValueError: it is neither an address nor a directory, or its name cannot stand in scores.
    """
    is_url = flags.judge.startswith(("http://", "https://"))
    if not is_url and not Path(flags.judge).is_dir():
        raise ValueError(
            f"--judge {flags.judge} is neither an address (http://HOST/v1) nor a directory of a "
            "model"
        )
    name = flags.model or ("" if is_url else Path(flags.judge).resolve().name)
    if not name:
        raise ValueError("--model is not given; name the model of the endpoint")
    if not name.isprintable() or any(c.isspace() or c in _SEPARATORS for c in name):
        raise ValueError(f"the judge's name {name!r} holds a blank, @ or comma; give --model NAME")
    if is_url:
        endpoint = Endpoint(
            flags.judge,
            name,
            api_key_env=flags.api_key_env,
            max_tokens=flags.max_tokens,
            timeout_s=_TIMEOUT_S,
            deadline_s=2 * _TIMEOUT_S,
            concurrency=flags.concurrency,
        )
        return _Judge(name, name, lambda: endpoint)
    from evr1.judge import identity_of  # jax, which an endpoint does not need

    return _Judge(name, identity_of(flags.judge), lambda: _open_model(flags))


def _open_model(flags: argparse.Namespace) -> Chat:
    from evr1.judge import SampledChat
    from evr1.parallel.mesh import make_mesh

    sizes = _mesh_sizes(flags.mesh)
    mesh = None
    if flags.mesh:
        mesh = make_mesh(data=sizes["data"], fsdp=sizes["fsdp"], tensor=sizes["tensor"])
    return SampledChat(
        flags.judge,
        dtype=flags.dtype,
        max_tokens=flags.max_tokens,
        max_prompt_tokens=flags.max_prompt_tokens,
        slots=flags.concurrency,
        mesh=mesh,
    )


def _mesh_sizes(text: str) -> dict[str, int]:
    """Returns the axes of a mesh, those that are not named at 1.

    >>> _mesh_sizes("tensor=4")
    {'data': 1, 'fsdp': 1, 'tensor': 4}
    """
    sizes = {"data": 1, "fsdp": 1, "tensor": 1}
    for item in _listed(text):
        name, _, size = item.partition("=")
        if name not in sizes or not size.removeprefix("-").isdecimal():
            raise ValueError(f"--mesh {text}: got {item!r}; give sizes of {', '.join(sizes)}")
        sizes[name] = int(size)
    return sizes


def _listed(text: str) -> list[str]:
    return [name for name in text.split(",") if name]
