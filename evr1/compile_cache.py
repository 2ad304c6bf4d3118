"""Where compiled programs are kept from one run to the next."""

import importlib
import os
import uuid
import zlib
from pathlib import Path

import jax

ENV = "JAX_COMPILATION_CACHE_DIR"
CHECKED = ".checked"  # its time: when the entries were last looked at
_ZSTD = b"\x28\xb5\x2f\xfd"  # JAX compresses so where the zstandard package is installed


def enable(directory: str) -> str:
    """Has JAX keep what it compiles, and returns where, in a line.

    Nothing is kept on CPUs unless asked for: XLA compiles for the very CPU that it runs on, and a
    program from a machine with other instructions, where homes are shared, may end the process.

    Args:
        directory: to keep programs in; "": evr1 in the user's cache directory on accelerators, none
            on CPUs; "off": none. JAX's own environment variable comes before it.

    Raises:
        ValueError: the directory cannot be written.
    """
    if os.environ.get(ENV):
        return f"compiled programs are kept in {os.environ[ENV]} ({ENV})"
    if directory == "off" or (not directory and jax.default_backend() == "cpu"):
        return "compiled programs are not kept (compile_cache)"
    root = Path(directory or default_directory())
    try:
        root.mkdir(parents=True, exist_ok=True)
        _drop_torn(root)
    except OSError as error:
        if not directory:
            return f"compiled programs are not kept: {error}"
        raise ValueError(
            f"config.compile_cache is {directory}: {error}; give a directory that can be written, "
            "or off"
        ) from None
    jax.config.update("jax_compilation_cache_dir", str(root))
    return f"compiled programs are kept in {root}"


def default_directory() -> Path:
    """evr1 in the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "evr1" / "compiled"


def _drop_torn(root: Path) -> None:
    """Removes entries that a killed run left half written.

    JAX writes them in place, warns of one at every use, and never writes it again.
    """
    mark = root / CHECKED
    since = mark.stat().st_mtime if mark.exists() else 0.0
    fresh = root / f"{CHECKED}-{uuid.uuid4().hex}"
    fresh.touch()  # before the look, so that what is written during it is looked at next time
    for path in root.glob("*-cache"):
        if path.stat().st_mtime >= since and not _is_whole(path):
            path.unlink(missing_ok=True)
    fresh.replace(mark)


def _is_whole(path: Path) -> bool:
    data = path.read_bytes()
    if data.startswith(_ZSTD):
        return _is_whole_zstd(data)
    try:
        zlib.decompress(data)
    except zlib.error:
        return False
    return True


def _is_whole_zstd(data: bytes) -> bool:
    try:
        zstandard = importlib.import_module("zstandard")  # optional, for us and for JAX
    except ImportError:
        return True
    try:
        zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError:
        return False
    return True
