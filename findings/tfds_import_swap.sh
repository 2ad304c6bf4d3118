#!/usr/bin/env bash
# While TensorFlow Datasets loads, relative imports fail in every other thread of the process.
#
# TFDS loads what it may not need lazily, through `etils.epy.lazy_imports`. That context replaces
# `builtins.__import__`, for the process and not for the thread, by a function that refuses relative
# imports ("Relative import statements not supported") and gives placeholders for all others. Code
# that imports inside a function asks for it at every call, also where the module is loaded long
# since. So a thread that draws a progress bar with rich dies while the main thread's first use of
# TFDS loads it: once in some hundred starts, more often on a busy machine.
#
# A thread repeats what rich's bars do at each refresh, while the main thread imports TFDS (threads
# take turns every microsecond here, which makes the rare sure):
# tensorflow-datasets 4.9.10, etils 1.15.0, rich 15.0.0, Python 3.11. Seen:
#     drawn before TFDS: no error
#     drawn while TFDS loads: ValueError: Relative import statements not supported
#     drawn after TFDS: no error
# Fails where that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tensorflow-datasets==4.9.10 etils==1.15.0 rich==15.0.0
cat > "$work/probe.py" <<'PY'
import sys
import threading

from rich.text import Text

sys.setswitchinterval(1e-6)
drawing, stop, problems = threading.Event(), threading.Event(), []


def draw():
    while not stop.is_set():
        try:
            Text.from_markup("[bold]decoding[/]")
        except ValueError as error:
            problems.append(f"{type(error).__name__}: {str(error).partition(' (')[0]}")
        drawing.set()


def report(when, act):
    problems.clear()
    drawing.clear(), stop.clear()
    thread = threading.Thread(target=draw)
    thread.start()
    drawing.wait()
    act()
    stop.set()
    thread.join()
    print(f"drawn {when}: {problems[0] if problems else 'no error'}")


def load():
    import tensorflow_datasets  # noqa: F401


report("before TFDS", lambda: stop.wait(0.2))
report("while TFDS loads", load)
report("after TFDS", lambda: stop.wait(0.2))
PY
"$work/venv/bin/python" "$work/probe.py" 2> "$work/err" | tee "$work/said" || { cat "$work/err"; exit 1; }
diff "$work/said" - <<'TXT'
drawn before TFDS: no error
drawn while TFDS loads: ValueError: Relative import statements not supported
drawn after TFDS: no error
TXT
