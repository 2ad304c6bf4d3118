"""Converts a model between a HF directory and an Orbax directory, and a run's checkpoint to HF.

evr1 convert --from_hf D --to_orbax D2
evr1 convert --from_orbax D2 --to_hf D3 [--adapter A]
evr1 convert --run WORKDIR --step 10 --to_hf D4

The Orbax directory keeps the tokenizer and the other side files, so evr1 takes it wherever it takes
a HF directory. Without --dtype every tensor comes back as it was, byte for byte. A conversion that
was interrupted starts over; a finished one is not repeated. --adapter adds a LoRA adapter, of peft
or of a run, to the model that is written.

Of a run, --step is the number of a checkpoint, `best` (on the held-out rows) or, by default, the
newest. Adapters are merged. Without --dtype the tensors have that of the run's exports; all of them
stand in memory at once.
"""

import argparse
import os
import sys

from evr1.config import arguments

DTYPES = ("float32", "bfloat16", "float16")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; 0 on success."""
    parser = arguments.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from_hf", metavar="DIR", type=arguments.local_path)
    parser.add_argument("--to_orbax", metavar="DIR", type=arguments.local_path)
    parser.add_argument("--from_orbax", metavar="DIR", type=arguments.local_path)
    parser.add_argument("--to_hf", metavar="DIR", type=arguments.local_path)
    parser.add_argument(
        "--adapter", metavar="DIR", type=arguments.local_path, help="of LoRA, for --from_orbax"
    )
    parser.add_argument("--run", metavar="WORKDIR", type=arguments.local_path)
    parser.add_argument("--step", metavar="STEP", default="", help="of --run: a number, or best")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="of the model's tensors; default: unchanged, of a run checkpoint.export_dtype",
    )
    parser.add_argument(
        "--max_shard_bytes", type=int, default=5 * 2**30, help="of a safetensors file"
    )
    flags = parser.parse_args(argv)
    ways = ("from_hf", "to_orbax", "from_orbax", "to_hf", "run")
    given = {k for k in ways if vars(flags)[k]}
    try:
        if flags.step and not flags.run:
            raise ValueError("--step is of a run; give --run WORKDIR")
        if flags.adapter and given != {"from_orbax", "to_hf"}:
            raise ValueError("--adapter goes with --from_orbax and --to_hf; a run's is merged")
        if flags.max_shard_bytes < 1:
            raise ValueError(f"--max_shard_bytes={flags.max_shard_bytes}; give a positive number")
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a conversion needs no accelerator
        from evr1.cli import conversion  # jax, which --help must not wait for

        if given == {"from_hf", "to_orbax"}:
            done = conversion.hf_to_orbax(flags.from_hf, flags.to_orbax, flags.dtype)
        elif given == {"from_orbax", "to_hf"}:
            done = conversion.orbax_to_hf(
                flags.from_orbax, flags.to_hf, flags.dtype, flags.max_shard_bytes, flags.adapter
            )
        elif given == {"run", "to_hf"}:
            done = conversion.run_to_hf(
                flags.run, flags.step, flags.to_hf, flags.dtype, flags.max_shard_bytes
            )
        else:
            raise ValueError(
                "give --from_hf and --to_orbax, --from_orbax and --to_hf, or --run and --to_hf"
            )
    except (ValueError, OSError) as e:
        print(f"{arguments.program('convert_checkpoint')}: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"{arguments.program('convert_checkpoint')}: interrupted; the same command starts over",
            file=sys.stderr,
        )
        return 130
    print(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
