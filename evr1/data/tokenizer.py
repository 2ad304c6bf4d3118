"""The tokenizer of a HF directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers


def load_tokenizer(root: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Returns the tokenizer of a HF directory, without padding and truncation.

    Args:
        root: the directory.
        config: what its tokenizer_config.json holds.

    Raises:
        ValueError: a file is missing or wrong; names it.
    """
    path = root / "tokenizer.json"
    if not path.exists():
        raise ValueError(f"{path} is missing; model must be a HF directory with a fast tokenizer")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as e:  # noqa: BLE001  tokenizers raises nothing narrower
        raise ValueError(f"{path}: no tokenizer ({e}); copy the file from the model again") from e
    tokenizer.no_padding()
    tokenizer.no_truncation()
    # Older exports keep tokens that were added later in tokenizer_config.json only.
    for id_, token in sorted(
        config.get("added_tokens_decoder", {}).items(), key=lambda x: int(x[0])
    ):
        if tokenizer.token_to_id(token["content"]) is None:
            added = tokenizers.AddedToken(**{**token, "normalized": token.get("normalized", False)})
            tokenizer.add_tokens([added])
            if tokenizer.token_to_id(token["content"]) != int(id_):
                raise ValueError(
                    f"{root}/tokenizer_config.json gives {token['content']} the id {id_}, which "
                    "tokenizer.json does not leave free; copy both files from the model again"
                )
    return tokenizer
