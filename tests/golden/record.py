"""Records the logits of transformers for tests/models/test_qwen3_vl.py; needs torch.

Usage: python tests/golden/record.py
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "rigs")]


def main() -> None:
    """Writes qwen3_vl.npz beside this file."""
    from hf import load_torch
    from models_oracle import config, hf_inputs, hf_model, pack, prompts

    torch = load_torch()
    items = prompts()
    batch, completions = pack(items)
    logits = []
    for tied in (False, True):
        model = hf_model(config(tied=tied))
        with torch.no_grad():
            logits.append(
                [
                    [
                        model(**hf_inputs(p, row)).logits[0, len(p.tokens) - 1 : -1].numpy()
                        for row in p.completions
                    ]
                    for p in items
                ]
            )
    arrays = {f"prompts_{k}": v for k, v in batch._asdict().items() if k != "vision"}
    arrays |= {f"vision_{k}": v for k, v in batch.vision._asdict().items()}
    np.savez_compressed(
        HERE / "qwen3_vl.npz",
        **arrays,
        completions=completions,
        logits=np.array(logits, np.float32),
    )
    print(f"wrote {HERE / 'qwen3_vl.npz'}")


if __name__ == "__main__":
    main()
