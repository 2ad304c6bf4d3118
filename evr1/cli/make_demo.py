"""Writes the demo's clips, images and rows: `evr1 make_demo --out DIR`."""

import sys

from evr1.config import arguments
from evr1.data.demo.files import HELDOUT_ROWS, TRAIN_ROWS, make_demo


def main() -> None:
    """Parses the flags and makes the data."""
    parser = arguments.Parser(description=__doc__)
    parser.add_argument("--out", required=True, help="directory for the rows and the media")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other clips")
    parser.add_argument("--train", type=int, default=TRAIN_ROWS, help="training rows")
    parser.add_argument("--heldout", type=int, default=HELDOUT_ROWS, help="held-out rows")
    args = parser.parse_args()
    try:
        make_demo(args.out, seed=args.seed, train=args.train, heldout=args.heldout)
    except (ValueError, OSError) as e:
        sys.exit(f"error: {e}")
    print(f"{args.train} training rows and {args.heldout} held-out rows are in {args.out}")


if __name__ == "__main__":
    main()
