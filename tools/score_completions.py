"""Log-probabilities of given completions, a number a token.

    python tools/score_completions.py --model HF_DIR --rows rows.jsonl --out out.jsonl

A row has a `completion` (text; <|im_end|> is added unless it ends so) or `completion_token_ids`,
which are taken as they are and go first. An output row is the input row with index,
prompt_token_ids, completion_token_ids and logprobs, one a completion token. They come from the
function that training uses, in the dtype asked for. Running it again continues.
"""

import argparse
import contextlib
import pathlib
import sys
from collections.abc import Iterator, Sequence

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import inference
import numpy as np
import sessions
from rich import console

from evr1.data.batch import collate
from evr1.data.errors import MediaError
from evr1.data.records import Example, Row

END = "<|im_end|>"


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or 1 with one line on standard error."""
    return inference.main("score_completions", _parser(), _run, argv)


def _run(flags: argparse.Namespace) -> int:
    from evr1.step import make_logprobs  # seconds, which --help must not wait for

    out = console.Console()
    if not flags.temperature > 0:
        raise ValueError(f"--temperature {flags.temperature}; give a number over 0")
    data = inference.load_rows(flags.rows)
    for row in data:
        _check(row)
    with contextlib.ExitStack() as stack:
        results = stack.enter_context(inference.Results(flags.out, inference.settings(flags), 1))
        todo = [row for row in data if row.index not in results.done]
        out.print(
            f"{len(data)} rows, {len(data) - len(todo)} done before; {flags.model}",
            soft_wrap=True,
        )
        if not todo:
            return 0
        session = sessions.open_session(flags, stack)
        logprobs = make_logprobs(session.model, temperature=flags.temperature)
        failures = inference.Failures(len(todo), flags.max_failed_share)
        bar = stack.enter_context(inference.bar(out, "scoring"))
        task = bar.add_task("", total=len(todo))
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
                mine = [examples[i] for i in part]
                texts = [completions[i] for i in part]
                scored = _score(session, logprobs, mine, texts)
                for example, tokens, values in zip(mine, texts, scored, strict=True):
                    results.add([_output(example, tokens, values)])
                    bar.advance(task)
        bar.stop()
        results.sort()
        failures.check(out)
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
    ids = row.extra.get("completion_token_ids")
    if ids is None:
        text = row.extra["completion"]
        ids = session.processor.tokenize(text if text.endswith(END) else text + END)
    vocab_size = session.model.config.vocab_size
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


def _score(session, logprobs, examples, completions) -> list[np.ndarray]:
    """float32[R] of each completion."""
    longest = sessions.round_up(max(map(len, completions)), 32)
    table = sessions.shape_table(examples, session.geometry, longest)
    groups = sessions.round_up(len(examples), 1)
    prompts = collate(
        examples, table, session.geometry, session.pos_grid, session.processor.pad_id, groups
    )
    tokens = np.full((groups, 1, longest), session.processor.pad_id, np.int32)
    for row, completion in zip(tokens, completions, strict=False):
        row[0, : len(completion)] = completion
    values = np.asarray(logprobs(session.params, prompts, tokens))
    return [v[0, : len(c)] for v, c in zip(values, completions, strict=False)]


def _output(example: Example, tokens: np.ndarray, values: np.ndarray) -> dict:
    return inference.output_row(
        example.row,
        prompt_token_ids=example.tokens.tolist(),
        completion_token_ids=tokens.tolist(),
        logprobs=inference.numbers(values),
    )


def _parser() -> argparse.ArgumentParser:
    parser = inference.parser(__doc__)
    add = parser.add_argument
    add("--temperature", type=float, default=1.0, help="logits are divided by it (default 1)")
    add("--batch_tokens", type=int, default=8192, help="padded tokens per forward (default 8192)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
