"""evr1 from Python: train, draw completions, score responses; docs/api.md shows it.

The same code as the commands, and the same words: `fields` are those of a config, `options` the
flags of `evr1 generate` and `evr1 rewards`. Importing it is quick; jax comes with `train` and
`open`. What a user can mend is a ValueError (or OSError) of one line.
"""

import contextlib
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ml_collections

from evr1.cli import generate, inference, sessions
from evr1.config import arguments, named, reference, resolve
from evr1.data import rows as data_rows
from evr1.data.errors import MediaError
from evr1.data.records import Row
from evr1.formats import run_files
from evr1.rewards import __main__ as scoring
from evr1.rewards import files

if TYPE_CHECKING:
    from evr1.report import Metrics

Rows = str | Path | Iterable[Mapping[str, Any] | str]
Rewards = str | Path | types.ModuleType


class Trained(NamedTuple):
    """What a training leaves.

    Attributes:
        workdir: everything that it wrote.
        model: what `open`, and every `--model`, takes: the exported HF directory, or the newest
            checkpoint where `checkpoint.export` is off.
        metrics: of all steps; `metrics.measured("eval/accuracy")` is [(step, value), ...].
    """

    workdir: Path
    model: Path
    metrics: "Metrics"


def train(
    config: str | Path | ml_collections.ConfigDict,
    fields: Mapping[str, Any] | None = None,
    *,
    rewards: Rewards = "",
) -> Trained:
    """Trains, or goes on with the training in the config's workdir, to its last step.

    In one process, on its devices; several hosts start `evr1 train` each.

    Args:
        config: a name (demo), the path of a config file, or a config.
        fields: changes to it, by dotted name: {"rollout.prompts": 64}.
        rewards: own scorers, the path of a .py file or a module: docs/rewards.md. Worker processes
            run it again, so that a function which a notebook alone knows cannot be given.

    Raises:
        ValueError: bad config, rows, media or model, in one line.
        FloatingPointError: more gradients than may be were not finite.
    """
    is_file = isinstance(config, str | Path)
    changed = _load(str(config)) if is_file else config.copy_and_resolve_references()
    change(changed, dict(fields or {}) | ({"rewards.extra": _spec(rewards)} if rewards else {}))
    settings = resolve(changed)
    from evr1 import train as training  # jax, which bad input need not wait for
    from evr1.report import read_metrics

    training.train(settings)
    workdir = Path(settings.workdir)
    export = workdir / "export"
    model = export if settings.checkpoint.export else workdir / run_files.FOLDER
    if model != export:
        model /= str(run_files.steps(workdir)[-1])
    return Trained(workdir, model, read_metrics(workdir / "metrics.jsonl"))


def change(config: ml_collections.ConfigDict, fields: Mapping[str, Any]) -> None:
    """Sets fields of a config, by dotted name.

    Raises:
        ValueError: no such field, with near ones, or a value of another type.
    """
    for name, value in fields.items():
        try:
            config.update_from_flattened_dict({name: value})
        except (KeyError, AttributeError) as error:
            near = reference.did_you_mean(name, [f.name for f in reference.base_table().fields])
            raise ValueError(f"fields[{name!r}]: no such field{near}") from error
        except TypeError as error:
            reason = " ".join(str(error.args[0] if error.args else error).split())
            raise ValueError(f"fields[{name!r}]: {reason}") from error


class Model:
    """A model that completions are drawn from; `open` makes it. A context manager."""

    def __init__(self, session: sessions.Session, flags: Any, stack: contextlib.ExitStack) -> None:
        self._session, self._flags, self._stack = session, flags, stack

    def generate(
        self,
        rows: Rows,
        *,
        n: int = 1,
        temperature: float | None = None,
        top_p: float = 1.0,
        top_k: int = 0,
        max_tokens: int | None = None,
        seed: int = 0,
    ) -> list[dict[str, Any]]:
        """Draws n completions of each row.

        Args:
            rows: questions: rows of any dialect that training reads, or texts alone; or a file.
            n: completions of a row.
            temperature: 0: greedy; None: that of the run given to `open`, else 1.
            top_p: share of the probability that is drawn from; 1: all.
            top_k: tokens that are drawn from; 0: all.
            max_tokens: of a completion; None: the run's limit, else 1024.
            seed: with the row's place it decides the draw, whatever else is drawn.

        Returns:
            n dicts a row, in the rows' order: the row's fields with index (its place), sample (0 to
            n - 1), completion and response (the text), finish_reason (stop, length, not_finite),
            completion_token_ids and logprobs (one each a token, in nats), prompt_token_ids. `score`
            takes them as they are.

        Raises:
            ValueError: a row that cannot be read, or whose media cannot be shown; names it.
        """
        f, actor = self._flags, self._session.actor
        data, made = _read(rows, f), {}
        sampling = actor.sampling(
            temperature=f.temperature if temperature is None else temperature,
            top_p=top_p,
            top_k=top_k,
            max_tokens=f.max_tokens if max_tokens is None else max_tokens,
            seed=seed,
        )
        slots = min(f.slots, len(data))
        for chunk, encoded in self._session.chunks(data, 2 * slots):
            for row, example in zip(chunk, encoded, strict=True):
                if isinstance(example, MediaError):
                    raise ValueError(f"{row.source}: {example}") from example
            examples = [e for e in encoded if not isinstance(e, MediaError)]

            def finish(i: int, rollouts: Any, examples: Sequence[Any] = examples) -> None:
                made[examples[i].row.index] = generate.output(
                    actor.processor, examples[i], rollouts
                )

            ids = [row.index for row in chunk]
            actor.generate(
                self._session.params, examples, ids, sampling, n=n, slots=slots, on_finish=finish
            )
        return [one for row in data for one in made[row.index]]

    def close(self) -> None:
        """Ends the decoding processes; the weights go with the object."""
        self._stack.close()

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open(model: str | Path, **options: Any) -> Model:  # noqa: A001  api.open reads as it should
    """Opens a model to draw from, with its weights.

    Args:
        model: HF directory, one of `evr1 convert`, or a run's checkpoint (RUN/checkpoints/10, RUN).
        **options: flags of `evr1 generate`, without their dashes: adapter, run (a workdir whose
            config gives the defaults), dtype, mesh, media_dir, fps, max_frames, max_pixels,
            thinking, prompt ("raw": texts as they are), slots, ...

    Raises:
        ValueError: no such option, or no model that evr1 knows.
    """
    parser = generate.make_parser()
    given = {"model": model, "rows": "-", "out": "-"} | options
    flags = arguments.of_options(parser, given)
    if flags.run:
        parser.set_defaults(**inference.run_defaults(flags.run, vars(flags)))
        flags = arguments.of_options(parser, given)
    with contextlib.ExitStack() as stack:
        try:
            session = sessions.open_session(flags, stack, (), lambda line: None)
        except ValueError as error:  # in the words of the options
            raise ValueError(inference.name_flags(str(error), flags)) from None
        return Model(session, flags, stack.pop_all())


def score(
    rows: str | Path | Iterable[Mapping[str, Any]], *, rewards: Rewards = "", **options: Any
) -> list[dict[str, Any]]:
    """Scores responses, in worker processes; needs no model and no jax.

    Args:
        rows: of problem_type, response (or completion) and answer, and what the type asks for, such
            as those of `Model.generate`; or a file of them.
        rewards: own scorers, as in `train`.
        **options: flags of `evr1 rewards`, without their dashes: accuracy_weight, box_scale, terms,
            workers, timeout_s, judge_url, ...

    Returns:
        The rows, in their order, with overall (the reward), accuracy and format, each from 0 to 1,
        status (ok, unparsed, timeout, error) and extracted, the answer as it was read; detail where
        something went wrong.

    Raises:
        ValueError: no such option, rewards that cannot be used, or a file without rows.
    """
    given = {"rows": "-", "out": "-", "extra": _spec(rewards) if rewards else None} | options
    flags = arguments.of_options(scoring.make_parser(), given)
    with contextlib.ExitStack() as stack:
        file = str(rows) if isinstance(rows, str | Path) else ""
        if isinstance(rows, str | Path):
            rows = stack.enter_context(files.reading(file)).rows
        made = stack.enter_context(scoring.Scoring(flags))
        scored = [row for _, row, _ in made.of([dict(row) for row in rows])]
        if file and not scored:
            raise ValueError(f"{file}: holds no rows; give a file with at least one")
        return scored


def _load(config: str) -> ml_collections.ConfigDict:
    """Returns a config by its name or path."""
    try:
        return named.load(config)
    except ValueError as error:
        raise ValueError(str(error).replace("--config=", "config=")) from None


def _spec(rewards: Rewards) -> str:
    """Returns own scorers as the config names them."""
    if isinstance(rewards, types.ModuleType):
        return rewards.__file__ or rewards.__name__
    if isinstance(rewards, str | Path):
        return str(rewards)
    raise ValueError(
        f"rewards is a {type(rewards).__name__}; give the path of a .py file with SCORERS or TERMS,"
        " or a module: worker processes run it again (docs/rewards.md)"
    )


def _read(rows: Rows, flags: Any) -> list[Row]:
    """Returns the rows of a call; a text alone is a question."""
    complete = inference.complete(flags)
    schema = inference.schema(flags, required=("problem",), complete=complete)
    if isinstance(rows, str | Path):
        return data_rows.load_rows(rows, schema)
    given = [{"problem": row} if isinstance(row, str) else row for row in rows]
    if not given:
        raise ValueError("rows: got none; give at least one")
    read = []
    for i, fields in enumerate(given):
        try:
            read.append(data_rows.parse_row(fields, i, f"rows[{i}]", schema))
        except ValueError as error:
            raise ValueError(f"rows[{i}]: {error}") from None
    whole = []
    for i, row in enumerate(complete(read, lambda line: None)):
        if isinstance(row, ValueError):
            raise ValueError(f"rows[{i}]: {row}") from None
        whole.append(row)
    return whole
