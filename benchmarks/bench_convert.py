"""Converting a checkpoint both ways: speed, and how much memory that takes beside the files' pages.

    python benchmarks/bench_convert.py

A random model of some gigabytes stands in several files. The peak is that of anonymous memory
(RssAnon), which the kernel cannot drop as it can the mapped pages of the files. A model of a few
kilobytes tells what the command itself takes; the bar is one source file and a tenth above that.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import show  # noqa: E402  the path comes first

DENSE = {
    "model_type": "qwen3_vl",
    "tie_word_embeddings": False,
    "text_config": {
        "vocab_size": 100_000,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 18,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "vision_config": {"depth": 4, "out_hidden_size": 2048, "deepstack_visual_indexes": [1]},
}
EXPERTS = {
    "model_type": "qwen3_5_moe",
    "tie_word_embeddings": False,
    "text_config": {
        "vocab_size": 100_000,
        "hidden_size": 1024,
        "num_hidden_layers": 8,
        "num_experts": 64,
        "moe_intermediate_size": 512,
    },
    "vision_config": {"depth": 4, "out_hidden_size": 1024},
}
SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
TINY = {
    "model_type": "qwen3_vl",
    "text_config": {**SIZES, "num_attention_heads": 2, "num_key_value_heads": 2},
    "vision_config": {
        **{"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48},
        **{"out_hidden_size": 32, "deepstack_visual_indexes": [1]},
    },
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shard_mb", type=int, default=500, help="of a source file, about")
    parser.add_argument("--dir", help="where the files go; default: a temporary directory")
    parser.add_argument("--json", help="also write the figures there")
    flags = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=flags.dir) as root:
        peaks = _measure(Path(root), "tiny", TINY, False, 10**6, {"to Orbax": 0, "to HF": 0})
        own = {row["conversion"]: int(row["peak MB"] * 1e6) for row in peaks}
        for name, config, is_fused in (
            ("dense", DENSE, False),
            ("experts one by one", EXPERTS, False),
            ("experts fused", EXPERTS, True),
        ):
            arguments = name, config, is_fused, flags.shard_mb * 10**6
            rows += _measure(Path(root), *arguments, own)
    show("conversion", rows, flags.json)


def _measure(
    root: Path, name: str, config: dict, is_fused: bool, shard: int, own: dict[str, int]
) -> list[dict]:
    source, middle, back = (root / x for x in ("source", "orbax", "back"))
    write_model(source, config, is_fused, shard)
    files = [file.stat().st_size for file in source.glob("*.safetensors")]
    tool, limit = str(ROOT / "tools" / "convert_checkpoint.py"), f"--max_shard_bytes={shard}"
    rows = []
    for what, flags in (
        ("to Orbax", [f"--from_hf={source}", f"--to_orbax={middle}"]),
        ("to HF", [f"--from_orbax={middle}", f"--to_hf={back}", limit]),
    ):
        peak, seconds = _run([sys.executable, tool, *flags])
        rest = own[what]
        rows.append(
            {
                "model": name,
                "conversion": what,
                "GB": sum(files) / 1e9,
                "files": len(files),
                "largest file MB": max(files) / 1e6,
                "peak MB": peak / 1e6,
                "own MB": rest / 1e6,
                "(peak - own) / file": (peak - rest) / max(files),
                "s": seconds,
                "MB/s": sum(files) / seconds / 1e6,
            }
        )
    _compare(source, back)
    for path in (source, middle, back):
        shutil.rmtree(path)
    return rows


def _run(command: list[str]) -> tuple[int, float]:
    """Returns the peak of anonymous memory in bytes, and seconds."""
    begin, peak = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            found = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
            peak = max(peak, *(1024 * int(kb) for kb in found), 0)
            time.sleep(0.005)
        error = process.stderr.read().decode() if process.stderr else ""
    if process.returncode:
        raise SystemExit(error)
    return peak, time.perf_counter() - begin


def write_model(path: Path, config: dict, is_fused: bool, shard: int) -> None:
    """Writes a directory of random bfloat16 weights.

    Args:
        path: of it.
        config: config.json.
        is_fused: the experts of a layer in one tensor, as on the hub.
        shard: bytes of a file.
    """
    from evr1.models import load_model
    from evr1.models.io import hf
    from evr1.models.tree import flatten

    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    model = load_model(str(path))
    shapes = {k: v.shape for k, v in flatten(model.abstract_params()).items()}
    layout = {}
    for w in model.weights() if is_fused else ():
        if w.fused:
            count, fan_in, fan_out = shapes[w.path][1:]
            for layer in w.layers:
                layout[w.fused.format(layer)] = (count, w.parts * fan_out, fan_in)
    kind = hf.np.dtype("bfloat16")
    named = [(t.name, t.shape, kind) for t in hf.listing(model, shapes, layout)]
    rng = np.random.default_rng(0)

    def values():
        for _, shape, _ in named:
            bits = rng.integers(0x3C00, 0x3F00, shape, np.uint16)
            yield bits.view(kind)

    out = path.with_name("made")
    hf.write_dir(out, named, values(), path, shard)
    shutil.rmtree(path)
    out.rename(path)


def _compare(source: Path, back: Path) -> None:
    from evr1.models.io import hf

    one, other = hf.entries(source), hf.entries(back)
    assert one.keys() == other.keys()
    for name, entry in one.items():
        assert np.array_equal(entry.open().view(np.uint16), other[name].open().view(np.uint16))


if __name__ == "__main__":
    main()
