"""Event files for TensorBoard: metrics, distributions, some rollouts with frames, hyperparameters.

They are written through TensorBoard's protos and record format, which need no TensorFlow.
"""

import html
import importlib
import io
import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evr1.data.media.sheet import sheet
from evr1.data.shown import Shown
from evr1.telemetry.records import RolloutRecord
from evr1.telemetry.sinks import SPLITS

Frames = Callable[[str, str], Shown | None]  # of (split, problem_id)
TEXTS = 4  # rollouts of a step that are shown
PICTURES = 2  # prompts of an evaluation whose frames are shown
_BUCKETS = 30
_MOST_FRAMES = 16
_HPARAMS = ("seed", "model", "algorithm", "optim", "rollout", "rewards", "lora", "mix", "dynamic")


class TensorBoard:
    """One event file of this process.

    Args:
        directory: made if it does not exist.
        start_step: the first step that this process records.
        config: of the run; its main groups are the hyperparameters.
        frames: what rows show; None: no pictures are written.
    """

    def __init__(
        self,
        directory: Path,
        start_step: int,
        config: Mapping[str, Any] | None = None,
        frames: Frames | None = None,
    ) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        event_pb2 = importlib.import_module("tensorboard.compat.proto.event_pb2")
        self._summary_pb2 = importlib.import_module("tensorboard.compat.proto.summary_pb2")
        self._tensor_pb2 = importlib.import_module("tensorboard.compat.proto.tensor_pb2")
        self._event, self._frames = event_pb2.Event, frames
        directory.mkdir(exist_ok=True)
        stem = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._records = RecordWriter((directory / stem).open("wb"))
        self._add(file_version="brain.Event:2")
        # makes TensorBoard forget what an earlier process wrote at or after this step
        self._add(
            step=start_step,
            session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START),
        )
        if config:
            self._hparams(flat(config))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one event that holds the metrics of a step."""
        value = self._summary_pb2.Summary.Value
        self._values(step, [value(tag=name, simple_value=v) for name, v in values.items()])

    def rollouts(self, records: Sequence[RolloutRecord]) -> None:
        """Writes distributions, some texts and, of held-out rows, some frames of a step."""
        for split, name in SPLITS.items():
            some = [r for r in records if r.split == split]
            if some:
                self._values(some[0].step, list(self._of_split(name, some)))

    def close(self) -> None:
        """Closes the event file."""
        self._records.close()

    def _of_split(self, name: str, records: Sequence[RolloutRecord]) -> Iterable[Any]:
        numbers = {
            "reward": [r.score.get("overall") for r in records],
            "length": [r.length for r in records],
            "advantage": [r.advantage for r in records],
        }
        for what, given in numbers.items():
            known = [v for v in given if v is not None and math.isfinite(v)]
            if known:
                yield self._histogram(f"rollouts/{name}/{what}", known)
        by_prompt = list({r.problem_id: r for r in reversed(records)}.values())[::-1]
        text = "\n\n---\n\n".join(_markdown(r) for r in by_prompt[:TEXTS])
        yield self._text(f"rollouts/{name}", text)
        if self._frames is not None and records[0].split == "eval":
            for i, record in enumerate([r for r in by_prompt if r.media][:PICTURES]):
                shown = self._frames(record.split, record.problem_id)
                if shown is not None and len(shown.frames):
                    yield self._image(f"frames/{name}/{i}", shown)

    def _histogram(self, tag: str, numbers: Sequence[float]) -> Any:
        values = np.asarray(numbers, np.float64)
        counts, edges = np.histogram(values, _BUCKETS)
        histogram = self._summary_pb2.HistogramProto(
            min=values.min(),
            max=values.max(),
            num=len(values),
            sum=values.sum(),
            sum_squares=np.square(values).sum(),
            bucket_limit=edges[1:].tolist(),
            bucket=counts.tolist(),
        )
        return self._summary_pb2.Summary.Value(tag=tag, histo=histogram)

    def _text(self, tag: str, text: str) -> Any:
        data = text.encode(errors="replace")
        tensor = self._tensor_pb2.TensorProto(dtype=7, string_val=[data])  # of strings
        tensor.tensor_shape.dim.add(size=1)
        metadata = self._summary_pb2.SummaryMetadata(data_class=2)  # a tensor
        metadata.plugin_data.plugin_name = "text"
        return self._summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=metadata)

    def _image(self, tag: str, shown: Shown) -> Any:
        stride = -(-len(shown.frames) // _MOST_FRAMES)
        picture = sheet([shown.frames[::stride]])
        data = io.BytesIO()
        Image.fromarray(picture).save(data, "PNG")
        image = self._summary_pb2.Summary.Image(
            height=picture.shape[0],
            width=picture.shape[1],
            colorspace=3,
            encoded_image_string=data.getvalue(),
        )
        return self._summary_pb2.Summary.Value(tag=tag, image=image)

    def _hparams(self, values: Mapping[str, bool | float | str]) -> None:
        plugin = importlib.import_module("tensorboard.plugins.hparams.plugin_data_pb2")
        info = plugin.SessionStartInfo(start_time_secs=time.time())
        for name, value in values.items():
            kind = {bool: "bool_value", str: "string_value"}.get(type(value), "number_value")
            setattr(info.hparams[name], kind, value)
        data = plugin.HParamsPluginData(version=0, session_start_info=info)
        metadata = self._summary_pb2.SummaryMetadata(data_class=2)
        metadata.plugin_data.plugin_name = "hparams"
        metadata.plugin_data.content = data.SerializeToString()
        nothing = self._tensor_pb2.TensorProto(dtype=1, float_val=[0.0])
        nothing.tensor_shape.dim.add(size=1)
        tag = "_hparams_/session_start_info"
        value = self._summary_pb2.Summary.Value(tag=tag, tensor=nothing, metadata=metadata)
        self._values(0, [value])

    def _values(self, step: int, values: Sequence[Any]) -> None:
        self._add(step=step, summary=self._summary_pb2.Summary(value=values))

    def _add(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()


def flat(config: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """Returns the hyperparameters of a config by dotted name; what is no plain value as JSON.

    >>> flat({"seed": 3, "optim": {"eps": 1e-8, "freeze": ("vision/.*",)}, "data": {"train": "x"}})
    {'seed': 3, 'optim.eps': 1e-08, 'optim.freeze': '["vision/.*"]'}
    """
    out: dict[str, bool | float | str] = {}
    for name in _HPARAMS:
        group = config.get(name)
        fields = {f"{name}.{k}": v for k, v in group.items()} if isinstance(group, dict) else None
        for field, value in ({name: group} if fields is None else fields).items():
            if value is not None:
                is_plain = isinstance(value, bool | int | float | str)
                out[field] = value if is_plain else json.dumps(value, default=str)
    return out


def _markdown(record: RolloutRecord) -> str:
    """Returns a rollout for people; what a model wrote is text and no markup."""
    score = ", ".join(f"{name} {value:.3g}" for name, value in record.score.items())
    head = f"**{record.problem_id}** ({record.problem_type}): {score}"
    blocks = {"prompt": record.prompt, "completion": record.completion, "answer": record.answer}
    return "\n\n".join(
        [head, *(f"{name}:\n\n{_block(str(text))}" for name, text in blocks.items())]
    )


def _block(text: str) -> str:
    """Returns a text as a block of code of Markdown, whatever it holds."""
    return "\n".join("    " + line for line in html.escape(text, quote=False).splitlines() or [""])
