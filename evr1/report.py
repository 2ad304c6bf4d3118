"""report.html: what a run did, in one static file that asks the network for nothing.

Reads config.json, metrics.jsonl and rollouts.jsonl of a workdir, whether the run has ended or not.
Model output is untrusted: it stands in the page as escaped JSON, the scripts write it as text only,
and a content security policy allows no other script and no request.
"""

import base64
import dataclasses
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np
from PIL import Image

from evr1 import problems

Frames = Callable[[str, str], Sequence[np.ndarray]]

# (title, series as (metric, label), percent); the rest is under "Every metric"
CHARTS = (
    (
        "Reward",
        (
            ("reward/overall", "overall"),
            ("reward/accuracy", "accuracy"),
            ("reward/format", "format"),
        ),
        False,
    ),
    ("Held-out accuracy", (("eval/accuracy", "held-out"),), True),
    ("Completion length, tokens", (("completion/length", "mean"),), False),
)
# (frames a prompt, pixels of the longer side): the first that fits the budget is taken
FRAME_SIZES = ((16, 224), (8, 192), (8, 128), (4, 112), (3, 96))
SETTINGS = (
    ("model", "model"),
    ("training rows", "data.train"),
    ("training sources, weights", "data.sources"),
    ("held-out rows", "data.eval"),
    ("prompts a step", "rollout.prompts"),
    ("completions a prompt", "rollout.n"),
    ("temperature", "rollout.temperature"),
    ("advantage", "algorithm.advantage"),
    ("clip low, high", "algorithm.clip_low algorithm.clip_high"),
    ("KL coefficient", "algorithm.kl_coef"),
    ("learning rate", "optim.learning_rate"),
    ("seed", "seed"),
    ("commit", "run.git_commit"),
)
_TYPE_NAMES = {name.replace(" ", "-"): name for name in problems.TYPES}  # as in metric names
_TEXT_LIMIT = 20_000  # characters of a prompt or a completion
_SERIES_LIMIT = 2_000  # steps in the curves
_FRAMES_SAMPLE = 12  # prompts whose frames are tried at every size


@dataclasses.dataclass
class _Group:
    """Lines of rollouts.jsonl that stand together and answer one prompt at one step."""

    key: tuple[int, str, str]
    start: int  # bytes
    end: int
    page_bytes: int  # about what it takes up in the page


def build(
    workdir: str | Path, frames: Frames | None = None, *, max_bytes: int = 10_000_000
) -> Path:
    """Writes workdir/report.html and returns its path.

    Args:
        workdir: of a run; metrics.jsonl must be there, everything else is optional.
        frames: what the model saw of (split, problem_id), each uint8[H, W, 3]; empty: nothing.
        max_bytes: the page stays about under this: rollouts are thinned out evenly over the run,
            frames made smaller and, last, left out.

    Raises:
        ValueError: no metrics.jsonl, or an unreadable line.
    """
    workdir = Path(workdir)
    config = json.loads(_text(workdir / "config.json", "{}"))
    steps, metrics = read_metrics(workdir / "metrics.jsonl")
    groups, total = _choose(workdir / "rollouts.jsonl", max_bytes // 2)
    prompts: list[str] = []
    rollouts = [_rollout_group(records, prompts) for records in groups]
    asked = list(dict.fromkeys((group["split"], group["id"]) for group in rollouts))
    pictures = embed_frames(frames, asked, max_bytes // 2) if frames is not None else {}
    data = {
        "steps": steps,
        "metrics": metrics,
        "charts": _charts(metrics),
        "prompts": prompts,
        "groups": rollouts,
        "frames": pictures,
    }
    page = _render(
        name=workdir.resolve().name,
        facts=_facts(config, steps, metrics),
        tiles=_tiles(config, steps, metrics),
        **_by_type(steps, metrics),
        kept=_kept_note(len(rollouts), total, len(pictures), len(asked), frames is not None),
        settings=_settings(config),
        config=json.dumps(config, indent=2, ensure_ascii=False),
        data=embed_json(data),
    )
    temporary = workdir / "report.html.tmp"
    temporary.write_text(page, encoding="utf-8", errors="replace")
    temporary.replace(workdir / "report.html")
    return workdir / "report.html"


def read_metrics(path: Path) -> tuple[list[int], dict[str, list[float | None]]]:
    """The steps in order, and each metric's value at every one of them (None: not measured).

    Lines of one step are merged, and their times added. Of very many steps only every second
    (third, ...) is taken, and all that have an evaluation.

    Raises:
        ValueError: no such file, or a line that is not a JSON object with a step.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist; give the workdir of a run")
    by_step: dict[int, dict[str, float | None]] = {}
    for _, _, record in _lines(path):
        merged = by_step.setdefault(record["step"], {})
        for name, value in record.items():
            # an evaluation is timed apart from the step that it follows
            adds_up = name.startswith("time/") and merged.get(name) is not None
            merged[name] = merged[name] + value if adds_up else value
    steps = sorted(by_step)
    stride = max(1, math.ceil(len(steps) / _SERIES_LIMIT))
    kept = set(steps[::stride]) | set(steps[-1:])
    kept |= {s for s in steps if any(name.startswith("eval/") for name in by_step[s])}
    steps = sorted(kept)
    names = sorted({name for s in steps for name in by_step[s]} - {"step"})
    return steps, {name: [by_step[s].get(name) for s in steps] for name in names}


def embed_json(value: Any) -> markupsafe.Markup:
    """JSON that may stand inside a script element: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return markupsafe.Markup(text)


def embed_frames(
    frames: Frames, prompts: Sequence[tuple[str, str]], max_bytes: int
) -> dict[str, list[str]]:
    """Data URIs of some frames of each prompt (split, problem_id), under "split/problem_id", as
    many and as large as the budget lets.

    The size is settled on a few prompts. Where even the smallest is too much, prompts spread evenly
    over the sequence get frames and the others none: frames may have to be decoded from video, so
    no more are asked for than fit.
    """
    if not prompts:
        return {}
    order = _spread(len(prompts))
    decoded = [frames(*prompts[i]) for i in order[:_FRAMES_SAMPLE]]
    count, side = FRAME_SIZES[-1]
    for count, side in FRAME_SIZES:
        used = sum(len(uri) for f in decoded for uri in _encode(f, count, side))
        if used / len(decoded) * len(prompts) <= max_bytes:
            break
    out: dict[str, list[str]] = {}
    for i in order:
        uris = _encode(frames(*prompts[i]), count, side)
        max_bytes -= sum(map(len, uris))
        if max_bytes < 0:
            break
        if uris:
            out["/".join(prompts[i])] = uris
    return out


def _spread(count: int) -> list[int]:
    """0..count-1 in an order of which every first part is spread evenly.

    >>> _spread(8)
    [0, 5, 2, 7, 4, 1, 6, 3]
    """
    # multiples of the golden ratio modulo 1
    return sorted(range(count), key=lambda i: (i * 0.6180339887498949) % 1)


def _encode(frames: Sequence[np.ndarray], count: int, side: int) -> list[str]:
    """JPEG data URIs of `count` frames spread evenly, longer side at most `side` pixels."""
    if len(frames) > count:
        frames = [frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int)]
    uris = []
    for frame in frames:
        image = Image.fromarray(frame)
        image.thumbnail((side, side), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=75, optimize=True)
        uris.append("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())
    return uris


def _lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(start, end, record) of every line; a half last line of a running or killed run is left."""
    position = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            start, position = position, position + len(line)
            try:
                record = json.loads(line)
                record["step"]
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path}:{number}: not a JSON object with a step") from error
            yield start, position, record


def _choose(path: Path, max_bytes: int) -> tuple[list[list[dict[str, Any]]], int]:
    """The records of the groups that fit, spread evenly over the file, and how many there were."""
    if not path.exists():
        return [], 0
    groups: list[_Group] = []
    for start, end, r in _lines(path):
        key = (r["step"], r["split"], r["problem_id"])
        if not groups or groups[-1].key != key:
            groups.append(_Group(key, start, start, len(r["prompt"]) + 200))
        groups[-1].end = end
        groups[-1].page_bytes += min(len(r["completion"]), _TEXT_LIMIT) + 150
    chosen = []
    for i in _spread(len(groups)):
        max_bytes -= groups[i].page_bytes
        if max_bytes < 0:
            break
        chosen.append(i)
    out = []
    with path.open("rb") as file:
        for i in sorted(chosen):
            file.seek(groups[i].start)
            block = file.read(groups[i].end - groups[i].start)
            out.append([json.loads(line) for line in block.splitlines()])
    return out, len(groups)


def _rollout_group(records: Sequence[Mapping[str, Any]], prompts: list[str]) -> dict[str, Any]:
    """A group as the page wants it; its prompt is added to `prompts` unless it stands there."""
    first = records[0]
    prompt = _cut(first["prompt"])
    if prompt not in prompts[-512:]:
        prompts.append(prompt)
    answer = first["answer"]
    return {
        "step": first["step"],
        "split": first["split"],
        "id": first["problem_id"],
        "type": first["problem_type"],
        "prompt": len(prompts) - 1 - prompts[::-1].index(prompt),
        "answer": answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False),
        "media": [os.path.basename(path) for path in first["media"]],
        "completions": [
            [
                _cut(r["completion"]),
                {k: _rounded(v) for k, v in r["score"].items()},
                r["status"],
                r["extracted"],
                _rounded(r["advantage"]),
                r["length"],
                r["finished"],
                r["weight_version"],
            ]
            for r in records
        ],
    }


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_LIMIT else text[:_TEXT_LIMIT] + " […]"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _charts(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    charts = [
        {"title": title, "series": series, "percent": percent, "zero": True}
        for title, series, percent in CHARTS
    ]
    phases = [n for n in metrics if n.startswith("time/") and n != "time/step_s"]
    phases.sort(key=lambda n: -sum(v or 0 for v in metrics[n]))
    series = [(n, n.removeprefix("time/").removesuffix("_s")) for n in phases]
    return [*charts, {"title": "Seconds a step, by phase", "series": series, "stacked": True}]


def _measured(steps: Sequence[int], values: Sequence[float | None]) -> list[tuple[int, float]]:
    return [(s, v) for s, v in zip(steps, values, strict=True) if v is not None]


def _facts(
    config: Mapping[str, Any], steps: Sequence[int], metrics: Mapping[str, Any]
) -> list[str]:
    facts = []
    if config.get("model"):
        facts.append(os.path.basename(str(config["model"]).rstrip("/")))
    num_steps = config.get("num_steps")
    done = steps[-1] if steps else 0
    facts.append(f"{done} of {num_steps} steps" if num_steps else f"{done} steps")
    seconds = sum(v or 0 for v in metrics.get("time/step_s", ()))
    if seconds:
        facts.append(f"{_duration(seconds)} in steps")
    commit = config.get("run", {}).get("git_commit", "")
    if commit:
        facts.append(f"commit {commit[:10]}{'+changes' if commit.endswith('+changes') else ''}")
    return facts


def _tiles(
    config: Mapping[str, Any], steps: Sequence[int], metrics: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The few numbers at the top."""
    tiles = []
    held_out = _measured(steps, metrics.get("eval/accuracy", [None] * len(steps)))
    if held_out:
        (_, before), (_, after) = held_out[0], held_out[-1]
        note = f"{100 * (after - before):+.1f} points"
        counts = _measured(steps, metrics.get("eval/rows", [None] * len(steps)))
        if counts:
            rows = int(counts[-1][1])
            # of a score in [0, 1] the variance is at most mean * (1 - mean)
            error = 100 * math.sqrt(max(after * (1 - after), 0) / max(rows, 1))
            note += f"; {rows:,} rows, standard error up to {error:.1f} points"
        value = f"{100 * before:.1f} → {100 * after:.1f} %"
        tiles.append({"label": "Held-out accuracy", "value": value, "note": note, "main": True})
    for name, label in (("reward/overall", "Reward"), ("reward/accuracy", "Training accuracy")):
        values = _measured(steps, metrics.get(name, [None] * len(steps)))
        if values:
            tenth = max(1, len(values) // 10)
            first = np.mean([v for _, v in values[:tenth]])
            last = np.mean([v for _, v in values[-tenth:]])
            note = f"mean of the first and last {tenth} steps" if tenth > 1 else "first, last step"
            tiles.append(
                {"label": label, "value": f"{first:.2f} → {last:.2f}", "note": note, "main": False}
            )
    speed = _measured(steps, metrics.get("speed/tokens_per_s", [None] * len(steps)))
    if speed:
        median = np.median([v for _, v in speed])
        tiles.append(
            {"label": "Tokens a second", "value": f"{median:,.0f}", "note": "median", "main": False}
        )
    return tiles


def _by_type(steps: Sequence[int], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of the table before and after, from eval/accuracy/<type> and eval/rows/<type>."""
    rows = []
    evals = _measured(steps, metrics.get("eval/accuracy", [None] * len(steps)))
    names = [n for n in metrics if n.startswith("eval/accuracy/")]
    for name in [*sorted(names), "eval/accuracy"] if names else []:
        values = _measured(steps, metrics[name])
        counts = _measured(
            steps, metrics.get(name.replace("accuracy", "rows"), [None] * len(steps))
        )
        if not values:
            continue
        before, after = values[0][1], values[-1][1]
        change = 100 * (after - before)
        rows.append(
            {
                "name": name.rpartition("/")[2].replace("_", " ")
                if name != "eval/accuracy"
                else "all",
                "total": name == "eval/accuracy",
                "rows": f"{counts[-1][1]:,.0f}" if counts else "–",
                "before": f"{100 * before:.1f} %",
                "after": f"{100 * after:.1f} %",
                "change": f"{change:+.1f}",
                "direction": "up" if change >= 0.05 else "down" if change <= -0.05 else "",
                "x0": f"{200 * before:.1f}",
                "x1": f"{200 * after:.1f}",
            }
        )
    return {
        "types": rows,
        "first_eval": evals[0][0] if evals else 0,
        "last_eval": evals[-1][0] if evals else 0,
    }


def _kept_note(kept: int, total: int, pictured: int, prompts: int, with_frames: bool) -> str:
    if not total:
        return "This run recorded no rollouts."
    share = f"All {total:,}" if kept == total else f"{kept:,} of {total:,}"
    note = f"{share} groups of completions"
    if kept < total:
        note += ", spread evenly over the run; rollouts.jsonl holds the rest"
    if with_frames and pictured < prompts:
        note += f". {pictured:,} of {prompts:,} prompts have frames here"
    return note + "."


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    out = []
    for label, fields in SETTINGS:
        values = [_field(config, field) for field in fields.split()]
        if all(value not in (None, "", []) for value in values):
            out.append((label, ", ".join(map(_shown, values))))
    return out


def _shown(value: Any) -> str:
    """A list of pairs as `a.jsonl 0.6, b.jsonl 0.4`."""
    if isinstance(value, list):
        return ", ".join(" ".join(map(str, pair)) for pair in value)
    return str(value)


def _field(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _text(path: Path, default: str) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else default


def _render(**values: Any) -> str:
    assets = Path(__file__).parent / "assets" / "report"
    style, script = (_text(assets / name, "") for name in ("report.css", "report.js"))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(_text(assets / "report.html.jinja", "")).render(
        style=markupsafe.Markup(style),
        script=markupsafe.Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        **values,
    )


def _hash(text: str) -> str:
    """The content security policy's name for an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
