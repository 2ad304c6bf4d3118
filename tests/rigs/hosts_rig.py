"""Runs of several processes on this machine, of one CPU device each or more."""

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from repo import ROOT
from runs_rig import environment, small

FIELDS = {
    "log__report": False,
    "train__microbatch_tokens": 4 * (128 + 4 * 24),  # 4 groups: one shape on four hosts
}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Processes:
    """A training of some processes, started at once.

    Attributes:
        logs: what each prints goes to these files.
        phases: and the phases that it begins to these, see phased_main.py.
    """

    def __init__(
        self,
        data: Path,
        workdir: Path,
        count: int,
        own: dict[int, dict[str, Any]] | None = None,
        devices: int = 1,
        is_phased: bool = False,
        **fields: Any,
    ) -> None:
        """Starts them.

        Args:
            data: demo clips and rows.
            workdir: of the run.
            count: number of processes.
            own: fields of single ones.
            devices: simulated ones of each process.
            is_phased: each writes to a file which phases it begins.
            **fields: of the config, with __ for the dots.
        """
        workdir.parent.mkdir(parents=True, exist_ok=True)
        common = FIELDS | {"compile_cache": data / "jax"}
        fields = small(data, workdir, **(common | fields))
        address = f"127.0.0.1:{free_port()}"
        self.processes, self.logs, self.phases = [], [], []
        for index in range(count):
            several = {"coordinator": address, "count": count, "index": index}
            together = {f"hosts.{k}": v for k, v in several.items()} if count > 1 else {}
            given = {**together, **fields, **(own or {}).get(index, {})}
            config = given.pop("config", "configs/demo.py")
            flags = [f"--config.{name}={value}" for name, value in given.items() if value != ""]
            log = workdir.parent / f"{workdir.name}.{index}.log"
            self.logs.append(log)
            self.phases.append(log.with_suffix(".phases"))
            program = ["-m", "evr1.main"]
            if is_phased:
                self.phases[-1].unlink(missing_ok=True)
                program = [str(ROOT / "tests" / "rigs" / "phased_main.py"), str(self.phases[-1])]
            with log.open("a") as out:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, *program, f"--config={config}", *flags],
                        cwd=ROOT,
                        env=environment(devices),
                        stdout=out,
                        stderr=subprocess.STDOUT,
                    )
                )

    def wait(self, timeout_s: float = 300) -> list[int]:
        """Exit statuses of all."""
        end = time.monotonic() + timeout_s
        try:
            return [p.wait(max(end - time.monotonic(), 0.1)) for p in self.processes]
        finally:
            for p in self.processes:
                p.kill()

    def wait_for(self, text: str, timeout_s: float = 300) -> None:
        """Waits until one of them has printed a text."""
        end = time.monotonic() + timeout_s
        while not any(text in log.read_text() for log in self.logs):
            assert time.monotonic() < end, self.printed()
            assert any(p.poll() is None for p in self.processes), self.printed()
            time.sleep(0.05)

    def wait_for_phase(self, phase: str, nth: int, timeout_s: float = 1200) -> None:
        """Waits until one of them has begun a phase so often."""
        end = time.monotonic() + timeout_s

        def begun() -> int:
            there = [path.read_text().splitlines() for path in self.phases if path.exists()]
            return max((lines.count(phase) for lines in there), default=0)

        while begun() < nth:
            assert time.monotonic() < end, self.printed()
            assert any(p.poll() is None for p in self.processes), self.printed()
            time.sleep(0.02)

    def printed(self) -> str:
        """The end of what each has printed."""
        return "\n".join(f"== {i}\n{log.read_text()[-2000:]}" for i, log in enumerate(self.logs))


def run(data: Path, workdir: Path, count: int, timeout_s: float = 300, **fields: Any) -> None:
    """Runs to the end; fails the test where a process fails, or takes too long."""
    started = Processes(data, workdir, count, **fields)
    statuses = started.wait(timeout_s)
    assert statuses == [0] * count, started.printed()
