"""Where compiled programs are kept from one run to the next.

XLA compiles for the very CPU that it runs on, and for its number of cores. Where homes are shared,
such a program may end a process on another machine, so each kind of machine has a folder of its
own. JAX's keys hold the rest: its version, XLA's flags, the device.
"""

import hashlib
import importlib
import os
import platform
import uuid
import zlib
from pathlib import Path

import jax

ENV = "JAX_COMPILATION_CACHE_DIR"
LEAST_ENV = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
LEAST_S = 0.1  # programs that take less are not kept; JAX says 1, and a run has dozens below
# What a CPU can do, in the words of Linux on x86 and on ARM. Speeds and numbers are left out.
_CPU_FIELDS = frozenset(
    ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")
    + ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features")
)
CHECKED = ".checked"  # a file whose time says when the entries were last checked
_ZSTD = b"\x28\xb5\x2f\xfd"  # how entries begin where the zstandard package is installed


def enable(directory: str) -> str:
    """Makes JAX keep the programs that it compiles, and returns a line that says where.

    Args:
        directory: where to keep programs, on CPUs in a folder for their kind; "": evr1 in the
            user's cache directory, nowhere on CPUs that cannot be told apart; "off": nowhere. JAX's
            own environment variable comes before it.

    Raises:
        ValueError: the directory cannot be written.
    """
    if os.environ.get(ENV):
        return f"compiled programs are kept in {os.environ[ENV]} ({ENV})"
    root = Path(directory or default_directory())
    is_cpu = jax.default_backend() == "cpu"
    kind = cpu_kind() if is_cpu else ""
    if directory == "off" or (is_cpu and not kind and not directory):
        return "compiled programs are not kept (compile_cache)"
    root = root / kind
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
    if not os.environ.get(LEAST_ENV):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_S)
    return f"compiled programs are kept in {root}"


def cpu_kind(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Returns a name that CPUs share for which XLA compiles the same; "" where it is not known.

    Args:
        cpuinfo: where the system describes its CPUs.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
        cores = len(os.sched_getaffinity(0))
    except (OSError, AttributeError):  # not Linux
        return ""
    pairs = (line.partition(":") for line in lines)
    said = {(key.strip(), " ".join(sorted(value.split()))) for key, _, value in pairs}
    fixed = sorted(f"{key}={value}" for key, value in said if key in _CPU_FIELDS)
    if not any(fact.startswith(("flags=", "Features=")) for fact in fixed):
        return ""
    facts = "\n".join([platform.machine(), str(cores), *fixed])
    return f"cpu-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"


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
