"""Log-probabilities of given completions, a number a token.

    evr1 score --model HF_DIR --rows rows.jsonl --out out.jsonl

A row has a `completion` (text; <|im_end|> is added unless it ends so, and a <think> at its start is
dropped where the prompt has opened the block) or `completion_token_ids`,
which are taken as they are and go first. An output row is the input row with index,
prompt_token_ids, completion_token_ids and logprobs, one a completion token; null where the model's
logits are not finite, which is told. They come from the function that training uses, in the dtype
asked for. Running it again continues.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from rich import console

from evr1.batch.shapes import round_up, shapes_of_examples
from evr1.cli import inference, outputs, sessions
from evr1.data.errors import MediaError
from evr1.data.records import Example, Row
from evr1.formats.words import counted
from evr1.parallel import leaving

END = "<|im_end|>"


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 with one line on standard error."""
    return inference.main("score_completions", _parser(), _run, argv)


def _run(flags: argparse.Namespace) -> int:
    from evr1.learner.update import make_logprobs  # seconds, which --help must not wait for

    out = console.Console()
    say = inference.noter(out, flags)
    if not flags.temperature > 0:
        raise ValueError(f"--temperature {flags.temperature}; give a number over 0")
    data = inference.load_rows(flags, say)
    for row in data:
        _check(row)
    with contextlib.ExitStack() as stack:
        results = stack.enter_context(outputs.Results(flags.out, inference.settings(flags), 1))
        todo = [row for row in data if row.index not in results.done]
        done = len(data) - len(todo)
        say(f"{counted(len(data), 'row')}, {done} done before; {flags.model}")
        if not todo:
            return 0
        session = sessions.open_session(flags, stack, data, say)
        model, mesh = session.actor.model, session.actor.mesh
        logprobs = make_logprobs(model, temperature=flags.temperature, mesh=mesh)
        failures = outputs.Failures(len(todo), flags.max_failed_share)
        bar = stack.enter_context(inference.bar(out, "scoring"))
        task = bar.add_task("", total=len(todo))
        broken: list[str] = []
        for rows, encoded in session.chunks(todo, 16):
            examples, completions = [], []
            for row, example in zip(rows, encoded, strict=True):
                if isinstance(example, MediaError):
                    failures.add(row, example)
                    bar.advance(task)
                else:
                    examples.append(example)
                    completions.append(_completion(session, row))
            for part in _batches(examples, completions, flags.batch_tokens):
                leaving.sync_point()
                mine = [examples[i] for i in part]
                texts = [completions[i] for i in part]
                scored = _score(session, logprobs, mine, texts)
                for example, tokens, values in zip(mine, texts, scored, strict=True):
                    broken += _broken(example.row, values)
                    results.add([_output(session, example, tokens, values)])
                    bar.advance(task)
        bar.stop()
        results.sort()
        failures.check(say)
        for line in [*broken, *session.remarks(todo)]:
            say(f"  {line}")
    return 0


def _check(row: Row) -> None:
    """Raises ValueError where there is nothing to score."""
    ids, text = row.extra.get("completion_token_ids"), row.extra.get("completion")
    if ids is not None:
        if not isinstance(ids, list) or not ids or not all(isinstance(i, int) for i in ids):
            raise ValueError(
                f"{row.source}: completion_token_ids: got {str(ids)[:60]}; give a list of ids"
            )
    elif not isinstance(text, str):
        raise ValueError(
            f"{row.source}: completion: got {str(text)[:60]}; give a text, or completion_token_ids"
        )


def _completion(session: sessions.Session, row: Row) -> np.ndarray:
    """int32[R], the tokens to score."""
    ids, actor = row.extra.get("completion_token_ids"), session.actor
    if ids is None:
        text = row.extra["completion"]
        ids = actor.processor.completion_ids(text if text.endswith(END) else text + END)
    vocab_size = actor.model.config.vocab_size
    if not 0 <= min(ids) <= max(ids) < vocab_size:
        raise ValueError(
            f"{row.source}: completion_token_ids: got {min(ids)} to {max(ids)}; the vocabulary has"
            f" ids 0 to {vocab_size - 1}"
        )
    return np.array(ids, np.int32)


def _batches(
    examples: Sequence[Example], completions: Sequence[np.ndarray], limit: int
) -> Iterator[list[int]]:
    """Indices of the examples, those of like size together, `limit` padded tokens at a time."""
    size = [len(e.tokens) + len(c) for e, c in zip(examples, completions, strict=True)]
    part: list[int] = []
    for i in sorted(range(len(examples)), key=lambda i: -size[i]):
        if part and (len(part) + 1) * size[part[0]] > limit:
            yield part
            part = []
        part.append(i)
    if part:
        yield part


def _score(
    session: sessions.Session,
    logprobs: Callable,
    examples: Sequence[Example],
    completions: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """Returns float32[R] of each completion."""
    from evr1.parallel.sharding import batch_shards  # as in _run

    actor = session.actor
    longest = round_up(max(map(len, completions)), 32)
    table = shapes_of_examples(examples, actor.processor.geometry, longest)
    shards = batch_shards(actor.mesh)
    groups = -(-round_up(len(examples), 1) // shards) * shards
    prompts = actor.collator(table)(examples, groups)
    tokens = np.full((groups, 1, longest), actor.processor.pad_id, np.int32)
    for row, completion in zip(tokens, completions, strict=False):
        row[0, : len(completion)] = completion
    values = np.asarray(logprobs(session.params, prompts, tokens))
    return [v[0, : len(c)] for v, c in zip(values, completions, strict=False)]


def _broken(row: Row, values: np.ndarray) -> list[str]:
    """Returns a line about log-probabilities that are none."""
    bad = ~np.isfinite(values)
    if not bad.any():
        return []
    return [
        f"not finite: {row.source} ({row.problem_id}): log-probabilities of {bad.sum()} of "
        f"{bad.size} tokens, the first after {int(bad.argmax())}; they are null"
    ]


def _output(
    session: sessions.Session, example: Example, tokens: np.ndarray, values: np.ndarray
) -> dict:
    return outputs.output_row(
        example.row,
        session.actor.processor.think_open,
        prompt_token_ids=example.tokens.tolist(),
        completion_token_ids=tokens.tolist(),
        logprobs=outputs.numbers(values),
    )


def _parser() -> argparse.ArgumentParser:
    parser = inference.parser(__doc__)
    add = parser.add_argument
    add("--temperature", type=float, default=1.0, help="logits are divided by it (default 1)")
    parser.set_defaults(window=16)  # nothing is drawn
    add("--batch_tokens", type=int, default=8192, help="padded tokens per forward (default 8192)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
