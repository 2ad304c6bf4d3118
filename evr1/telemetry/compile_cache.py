"""Where compiled programs are kept from one run to the next."""

import importlib
import os
import uuid
import zlib
from pathlib import Path

import jax

ENV = "JAX_COMPILATION_CACHE_DIR"
CHECKED = ".checked"  # a file whose time says when the entries were last checked
_ZSTD = b"\x28\xb5\x2f\xfd"  # how entries begin where the zstandard package is installed


def enable(directory: str) -> str:
    """Makes JAX keep the programs that it compiles, and returns a line that says where.

    On CPUs nothing is kept unless a directory is given: XLA compiles for the very CPU that it runs
    on, and where homes are shared, a program for another CPU's instructions may end the process.

    Args:
        directory: where to keep programs; "": evr1 in the user's cache directory on accelerators,
            nowhere on CPUs; "off": nowhere. JAX's own environment variable comes before it.

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
    """The folder of evr1 in the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "evr1" / "compiled"


def _drop_torn(root: Path) -> None:
    """Removes entries that a killed run left half written.

    JAX writes entries in place, warns of a torn one at every use, and never writes it again.
    """
    mark = root / CHECKED
    last_check = mark.stat().st_mtime if mark.exists() else 0.0
    new_mark = root / f"{CHECKED}-{uuid.uuid4().hex}"
    new_mark.touch()  # before the check, so that what is written meanwhile is checked next time
    for path in root.glob("*-cache"):
        if path.stat().st_mtime >= last_check and not _is_whole(path):
            path.unlink(missing_ok=True)
    new_mark.replace(mark)


def _is_whole(path: Path) -> bool:
    """Whether an entry can be decompressed."""
    data = path.read_bytes()
    if data.startswith(_ZSTD):
        return _is_whole_zstd(data)
    try:
        zlib.decompress(data)
    except zlib.error:
        return False
    return True


def _is_whole_zstd(data: bytes) -> bool:
    """Whether zstd data can be decompressed; true where that cannot be tried."""
    try:
        zstandard = importlib.import_module("zstandard")  # optional, for us and for JAX
    except ImportError:
        return True
    try:
        zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError:
        return False
    return True
