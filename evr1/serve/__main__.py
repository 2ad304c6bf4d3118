"""Serves a model as OpenAI's API does: chat completions with images and videos.

    python -m evr1.serve --model HF_DIR --port 8000 --media_dir clips
    curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' -d '
      {"model": "HF_DIR", "messages": [{"role": "user", "content": [
        {"type": "video_url", "video_url": {"url": "file:a.mp4", "max_frames": 16}},
        {"type": "text", "text": "What happens?"}]}]}'

Questions on the same media are prefilled once, as are the n answers to one. Nothing but what stands
in a request is read, unless --media_dir or --allow_http says so. SIGTERM lets answers under way
end. What is understood and what is not: docs/serving.md.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

from evr1.config import arguments
from evr1.data import budget_flags
from evr1.serve.flags import parse, settings_of
from evr1.serve.settings import ServeSettings


def main(argv: list[str] | None = None) -> int:
    """Runs the command. Exit status: 0 after SIGTERM, 130 after Ctrl-C, else 1 with a line."""
    try:
        with _leaving_at_once():
            flags = parse(__doc__, argv)
            return _run(settings_of(flags), flags)
    except (ValueError, OSError) as error:
        fields = {f"data.{field}": flag for flag, field in budget_flags.FIELDS.items()}
        line = arguments.name_flags(" ".join(str(error).split()), fields)
        print(f"serve: {line}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def _leaving_at_once() -> Iterator[None]:
    """Ends the process at SIGTERM and Ctrl-C with a line; inside, the server has its own way."""

    def leave(number: int, frame: FrameType | None) -> None:
        del frame
        asked = "interrupted" if number == signal.SIGINT else "asked to end"
        with contextlib.suppress(OSError):
            os.write(2, f"serve: {asked}; no request is under way\n".encode())
        os._exit(130 if number == signal.SIGINT else 0)  # an exception amid a compilation crashes

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(settings: ServeSettings, flags: argparse.Namespace) -> int:
    try:
        from evr1.serve import server as http  # seconds; --help and a wrong flag need not wait
    except ModuleNotFoundError as error:
        raise ValueError(f"no {error.name}; install evr1[serve]") from None
    sockets = http.bind(flags.host, flags.port)  # or who is second reads a model first
    from evr1.serve import weights
    from evr1.serve.app import make_app
    from evr1.serve.chat import Chat
    from evr1.serve.gate import Gate
    from evr1.serve.metrics import Metrics
    from evr1.serve.parts import open_parts
    from evr1.serve.prepare import Preparer
    from evr1.serve.worker import Worker
    from evr1.telemetry import compile_cache

    http.Protocol.most = http.room_for_connections()
    compile_cache.enable(flags.compile_cache)
    version = weights.newest(settings.model)
    with contextlib.ExitStack() as stack:
        actor, pool, folder, side = open_parts(settings, version.path, stack)
        params = actor.load(version.path, settings.adapter)
        worker = Worker(settings, actor, params, version)
        del params  # of a run that is followed, the first weights go with the second ones
        preparer = Preparer(settings, side, actor.processor, pool, folder, worker.is_kept)
        threads = stack.enter_context(ThreadPoolExecutor(2 * settings.workers + 2))
        parsers = stack.enter_context(ThreadPoolExecutor(2))
        stack.callback(pool.close)  # whoever waits for a decoder waits no more
        gate = Gate(settings)
        metrics = Metrics(lambda: {**worker.gauges(), "requests_open": gate.requests})
        chat = Chat(settings, worker, preparer, gate, threads, parsers, metrics)
        app = make_app(settings, worker, chat, gate, metrics)

        def tell(address: str) -> None:
            print(f"{settings.name} ({version.name}) at {address}/v1", flush=True)
            print(f"{preparer.about}; requests may say others", flush=True)

        server = http.Server(app, settings.drain_s, lambda: worker.is_sound, tell)
        worker.start()
        try:
            server.run(sockets)
        finally:
            worker.close()
    if worker.fault and not server.signal:
        print(f"serve: the model fails again and again: {worker.fault}", file=sys.stderr)
        return 1
    return 130 if server.signal == 2 else 0


if __name__ == "__main__":
    sys.exit(main())
