"""Converts a model between a HF directory and an Orbax directory, both ways.

python tools/convert_checkpoint.py --from_hf D --to_orbax D2
python tools/convert_checkpoint.py --from_orbax D2 --to_hf D3

The Orbax directory keeps the tokenizer and the other side files, so evr1 takes it wherever it takes
a HF directory. Without --dtype every tensor comes back as it was, byte for byte. A conversion that
was interrupted starts over; a finished one is not repeated.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a conversion needs no accelerator

DTYPES = ("float32", "bfloat16", "float16")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; 0 on success."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from_hf", metavar="DIR", type=Path)
    parser.add_argument("--to_orbax", metavar="DIR", type=Path)
    parser.add_argument("--from_orbax", metavar="DIR", type=Path)
    parser.add_argument("--to_hf", metavar="DIR", type=Path)
    parser.add_argument(
        "--dtype", choices=DTYPES, help="of the model's tensors; default: unchanged"
    )
    parser.add_argument(
        "--max_shard_bytes", type=int, default=5 * 2**30, help="of a safetensors file"
    )
    flags = parser.parse_args(argv)
    given = {k for k in ("from_hf", "to_orbax", "from_orbax", "to_hf") if vars(flags)[k]}
    try:
        if flags.max_shard_bytes < 1:
            raise ValueError(f"--max_shard_bytes={flags.max_shard_bytes}; give a positive number")
        import conversion  # jax, which --help must not wait for

        if given == {"from_hf", "to_orbax"}:
            done = conversion.hf_to_orbax(flags.from_hf, flags.to_orbax, flags.dtype)
        elif given == {"from_orbax", "to_hf"}:
            done = conversion.orbax_to_hf(
                flags.from_orbax, flags.to_hf, flags.dtype, flags.max_shard_bytes
            )
        else:
            raise ValueError("give --from_hf and --to_orbax, or --from_orbax and --to_hf")
    except (ValueError, OSError) as e:
        print(f"convert_checkpoint: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("convert_checkpoint: interrupted; the same command starts over", file=sys.stderr)
        return 130
    print(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
