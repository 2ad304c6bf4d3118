"""Draws n completions for every row of a data file.

    evr1 generate --model HF_DIR --rows rows.jsonl --out out.jsonl --n 8 --temperature 1

An output row is the input row with index, sample (0 to n-1), prompt_token_ids,
completion_token_ids, logprobs (one a completion token, the end token included, of the full softmax
at the temperature), completion, response (the same text: what evr1.rewards reads), finish_reason
(stop, length, or not_finite: the model's logits were not, and the completion ends before them), and
think_open (true) where the prompt left a think block open. Running it again
continues. Tokens depend on --seed and the row's place in the file alone, not on what else is drawn
or where a run was interrupted.
"""

import argparse
import contextlib
import sys
import time

from rich import console

from evr1.cli import inference, outputs, sessions
from evr1.data.errors import MediaError
from evr1.data.records import Row
from evr1.formats.words import counted
from evr1.types import Rollouts


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 with one line on standard error."""
    return inference.main("generate", make_parser(), _run, argv)


def _run(flags: argparse.Namespace) -> int:
    out = console.Console()
    say = inference.noter(out, flags)
    if flags.n < 1 or flags.slots < 1:
        raise ValueError(f"--n {flags.n}, --slots {flags.slots}; give at least 1 of each")
    data = inference.load_rows(flags, say)
    with contextlib.ExitStack() as stack:
        results = stack.enter_context(
            outputs.Results(flags.out, inference.settings(flags), flags.n)
        )
        todo = [row for row in data if row.index not in results.done]
        say(
            f"{counted(len(data), 'row')}, {len(data) - len(todo)} done before; "
            f"{counted(flags.n, 'completion')} of each at temperature {flags.temperature:g}; "
            f"{flags.model}"
        )
        if not todo:
            return 0
        session = sessions.open_session(flags, stack, data, say)
        actor = session.actor
        sampling = actor.sampling(
            temperature=flags.temperature,
            top_p=flags.top_p,
            top_k=flags.top_k,
            max_tokens=flags.max_tokens,
            seed=flags.seed,
        )
        failures = outputs.Failures(len(todo), flags.max_failed_share)
        broken: list[str] = []
        tokens, seconds = 0, 0.0
        bar = stack.enter_context(inference.bar(out, "generating"))
        task = bar.add_task("", total=len(todo))
        slots = min(flags.slots, len(todo))
        for rows, encoded in session.chunks(todo, 2 * slots):
            for row, failed in zip(rows, encoded, strict=True):
                if isinstance(failed, MediaError):
                    failures.add(row, failed)
                    bar.advance(task)
            examples = [e for e in encoded if not isinstance(e, MediaError)]
            if not examples:
                continue

            def finish(i: int, rollouts: Rollouts, examples=examples) -> None:
                if not rollouts.is_finite.all():
                    broken.append(_broken(examples[i].row, rollouts))
                results.add(output(actor.processor, examples[i], rollouts))
                bar.advance(task)

            ids = [e.row.index for e in examples]
            begun = time.perf_counter()
            rollouts = actor.generate(
                session.params, examples, ids, sampling, n=flags.n, slots=slots, on_finish=finish
            )
            tokens += int(rollouts.lengths.sum())
            seconds += time.perf_counter() - begun
            bar.update(task, description=f"{tokens / seconds:.0f} tokens/s")
        bar.stop()
        results.sort()
        failures.check(say)
        for line in [*session.remarks(todo), *(f"not finite: {line}" for line in broken)]:
            say(f"  {line}")
        say(f"{flags.out}: {tokens} tokens in {seconds:.1f} s")
    return 0


def _broken(row: Row, rollouts: Rollouts) -> str:
    bad = ~rollouts.is_finite
    return (
        f"{row.source} ({row.problem_id}): logits of {bad.sum()} of {bad.size} completions, first "
        f"after {rollouts.drawn[bad].min()} tokens; they end there, finish_reason not_finite"
    )


def output(processor, example, rollouts: Rollouts) -> list[dict]:
    """Returns the output rows of one input row."""
    made = []
    states = zip(rollouts.drawn, rollouts.is_finite, rollouts.finished, strict=True)
    for sample, (length, is_finite, finished) in enumerate(states):
        tokens, logprobs = rollouts.completions[sample], rollouts.logprobs[sample]
        text = processor.decode(tokens[:length])
        reason = "stop" if finished else "length"
        made.append(
            outputs.output_row(
                example.row,
                processor.think_open,
                sample=sample,
                prompt_token_ids=example.tokens.tolist(),
                completion_token_ids=tokens[:length].tolist(),
                logprobs=outputs.numbers(logprobs[:length]),
                completion=text,
                response=text,
                finish_reason=reason if is_finite else "not_finite",
            )
        )
    return made


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = inference.parser(__doc__)
    add = parser.add_argument
    add("--n", type=int, default=1, help="completions of a row (default 1)")
    add("--temperature", type=float, default=1.0, help="0: greedy (default 1)")
    add("--top_p", type=float, default=1.0, help="1: off (default)")
    add("--top_k", type=int, default=0, help="0: off (default)")
    add("--max_tokens", type=int, default=1024, help="of a completion (default 1024)")
    add("--slots", type=int, default=16, help="rows that decode at the same time (default 16)")
    add("--window", type=int, default=16, help="decode steps per dispatch (default 16)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
