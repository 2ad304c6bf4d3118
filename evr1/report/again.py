"""The rows of a run, opened again by its config.json, for what the page does not have yet."""

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evr1.config import DataSettings, urls
from evr1.config.base import get_config
from evr1.config.read import read_section
from evr1.data.dataset import budgets, open_source, read_rows
from evr1.data.processor import Processor
from evr1.data.shown import Shown, ShownRows
from evr1.models.io import hf

_PATHS = ("train", "eval", "media_dir", "media_cache", "shards")


def open_shown(config: Mapping[str, Any], stack: contextlib.ExitStack) -> ShownRows:
    """Opens rows and media of a run as it did; decodes nothing yet.

    Args:
        config: of config.json.
        stack: closes the decoding processes.

    Raises:
        ValueError: the config has no data, or its files are not there any more.
        OSError: the same.
    """
    data = _data(config)
    side = str(hf.side_dir(_at_home(config, config["model"])))
    geometry = Processor.from_hf(side).geometry
    heldout = config.get("eval", {}).get("prompts", 0)
    rows = read_rows(data, str, heldout)  # as they spell their types: nothing is scored
    bad = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "quarantine.jsonl"
    limits = budgets(data, side)
    try:
        source = open_source(data, limits, geometry, bad, stack)
    except ValueError:  # shards of another version
        data = dataclasses.replace(data, shards="", source="realtime_only")
        source = open_source(data, limits, geometry, bad, stack)
    return ShownRows(rows.train, rows.heldout, source)


class Again:
    """Frames of a run that has ended or that another process runs; opened when they are asked for.

    Where they cannot be had, a line says why, once.

    Args:
        workdir: of the run.
        stack: closes the decoding processes.
        say: takes the line.
    """

    def __init__(
        self, workdir: str | Path, stack: contextlib.ExitStack, say: Callable[[str], None]
    ) -> None:
        self._workdir, self._stack, self._say = Path(workdir), stack, say
        self._rows: ShownRows | None = None
        self._is_open = False

    def __call__(self, split: str, problem_id: str) -> Shown | None:
        """Returns what `ShownRows` does."""
        if not self._is_open:
            self._is_open = True
            try:
                config = json.loads((self._workdir / "config.json").read_text("utf-8"))
                self._rows = open_shown(config, self._stack)
            except (OSError, ValueError, KeyError) as error:
                self._say(f"no frames but those of earlier pages: {error}")
        return self._rows and self._rows(split, problem_id)


def _data(config: Mapping[str, Any]) -> DataSettings:
    """The section of the data, with paths as the run's folder has them."""
    if "data" not in config or "model" not in config:
        raise ValueError("config.json has no data or no model")
    defaults = get_config().to_dict()["data"]
    fields = defaults | {k: v for k, v in config["data"].items() if k in defaults}
    fields |= {name: _at_home(config, fields[name]) for name in _PATHS}
    sources = [(_at_home(config, path), weight) for path, weight in fields["sources"]]
    fields |= {"sources": tuple(sources), "workers": 1}
    return read_section(DataSettings, fields, defaults)


def _at_home(config: Mapping[str, Any], path: str) -> str:
    """A path as it is seen from the folder that the run was started in."""
    if not path or urls.is_bucket(path):
        return path
    return os.path.join(config.get("run", {}).get("folder", ""), path)
