"""Keys of clients, compared in a time that does not tell how much of one was right."""

import hashlib
import hmac
import os
import pathlib
from collections.abc import Sequence


def read(env: str, file: str) -> tuple[str, ...]:
    """Returns the keys that are given; none: everybody may ask.

    Args:
        env: name of an environment variable that holds one; empty: none.
        file: with one a line; empty: none.

    Raises:
        ValueError: there is none where one is promised.
    """
    keys: list[str] = []
    if env:
        keys.append(os.environ.get(env, "").strip())
    if file:
        try:
            text = pathlib.Path(file).read_text("utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError(f"{file}: no text in UTF-8; write the keys anew") from None
        keys += [line.strip() for line in text.splitlines()]
    found = tuple(key for key in keys if key)
    if (env or file) and not found:
        named = " and ".join(n for n in (env and f"${env}", file) if n)
        raise ValueError(f"{named}: holds no key; put one there, or leave the flag out")
    return found


def is_known(header: str, keys: Sequence[str]) -> bool:
    """Returns whether an Authorization header carries one of the keys, in UTF-8.

    >>> is_known("Bearer a", ["a"]), is_known("Bearer b", ["a"]), is_known("", [])
    (True, False, True)
    """
    if not keys:
        return True
    scheme, _, given = header.partition(" ")  # Starlette has read its bytes as Latin-1
    digest = hashlib.sha256(given.strip(" \t").encode("latin-1")).digest()
    found = False
    for key in keys:  # all of them, whichever it is
        found |= hmac.compare_digest(digest, hashlib.sha256(os.fsencode(key)).digest())
    return found and scheme.lower() == "bearer"
