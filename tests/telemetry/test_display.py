"""What the console shows: plain lines, the live panel, the time left."""

import io
import threading

from rich.console import Console

from evr1.parallel.progress import Progress
from evr1.telemetry.display import Display, _duration


def clock_of(*ticks):
    it = iter(ticks)
    return lambda: next(it)


def test_plain_line_a_step():
    out = io.StringIO()
    display = Display(20, 2, Console(file=out, width=40), clock=clock_of(100.0, 110.0))
    display.status("rollout")
    display.metrics(
        4,
        {
            "reward/overall": 0.5123,
            "speed/tokens_per_s": 12345.0,
            "time/step_s": 4.96,
            "time/score_s": 0.1,
            "time/rollout_s": 3.0,
        },
    )
    display.close()
    # two steps in 10 s, sixteen to go; longer than the console, and still one line
    assert out.getvalue() == (
        "step 4/20  reward 0.512  tokens/s 12,345  5.0 s (rollout 3.0, score 0.1)  1m20s left\n"
    )


def test_what_compiling_took_of_a_step_is_told():
    out = io.StringIO()
    display = Display(20, 2, Console(file=out, width=40), clock=lambda: 100.0)
    values = {"time/step_s": 60.0, "time/rollout_s": 20.0, "time/update_s": 39.0}
    display.compiling(18.0)
    display.compiling(40.0)
    display.metrics(2, {"reward/overall": 0.5})  # of no step: they stay to be told
    display.metrics(3, values)
    display.metrics(4, values)
    assert [line.partition("60.0 s ")[2] for line in out.getvalue().splitlines()][1:] == [
        "(update 39.0, rollout 20.0; 58.0 of it compiling)  0s left",
        "(update 39.0, rollout 20.0)  0s left",
    ]


def test_held_out_rows_that_failed_stand_beside_the_accuracy():
    out = io.StringIO()
    display = Display(20, 2, Console(file=out, width=40), clock=clock_of(100.0, 110.0, 120.0))
    values = {"eval/accuracy": 0.237, "eval/rows": 40, "eval/failed_rows": 0}
    display.metrics(2, values | {"eval/accuracy_answered": 0.237})
    display.metrics(2, values | {"eval/failed_rows": 18, "eval/accuracy_answered": 0.431})
    assert out.getvalue().splitlines() == [
        "step 2/20  held-out 0.237",
        "step 2/20  held-out 0.237 (18 of 40 failed and count as wrong, 0.431 without them)",
    ]


def test_the_time_left_is_estimated_without_what_compiling_took():
    out = io.StringIO()
    clock = clock_of(100.0, 101.0, 110.0)
    display = Display(20, 2, Console(file=out, width=40), clock=clock)
    display.compiling(None)
    display.compiling(6.0)
    display.metrics(4, {"reward/overall": 0.5})
    assert out.getvalue() == "step 4/20  reward 0.500  32s left\n"  # 4 s, not 10, for two steps


def test_the_time_left_forgets_the_evaluation_at_step_0_and_the_first_step():
    """At 200 the evaluation is done, after 60 s of compiling; steps end at 250, 252 and 254.

    Left after step 1: 50 s a step, for 9 more. After steps 2 and 3: 2 s a step, for 8 and 7. With
    the time before step 1 it would be 1m48s and 1m56s.
    """
    out = io.StringIO()
    clock = clock_of(100.0, 110.0, 200.0, 250.0, 252.0, 253.0, 254.0)
    display = Display(10, 0, Console(file=out, width=40), clock=clock)
    display.compiling(None)
    display.compiling(60.0)
    display.metrics(0, {"eval/accuracy": 0.25})
    display.metrics(1, {})
    display.metrics(2, {})
    display.metrics(2, {"eval/accuracy": 0.5})
    display.metrics(3, {})
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[-1] for line in lines] == [
        "held-out 0.250",
        "7m30s left",
        "16s left",
        "16s left",
        "14s left",
    ]


def test_a_long_compilation_that_was_not_foreseen_is_told():
    out, said = io.StringIO(), threading.Event()
    display = Display(20, 0, Console(file=out, width=40), long_s=0.0)
    print_line = display.line
    display.line = lambda text: (print_line(text), said.set())
    display.status("rollout")
    display.compiling(None)
    assert said.wait(60)
    assert out.getvalue() == "rollout: a program that was not foreseen is compiled\n"


def test_off_a_terminal_no_phase_is_silent_for_long():
    out, now = io.StringIO(), [100.0]
    display = Display(20, 0, Console(file=out, width=40), clock=lambda: now[0])

    def ticks(seconds):
        for _ in range(seconds):
            now[0] += 1
            display.tick()

    display.tick()
    display.status("rollout")
    display.count(8, 64, "completions")
    ticks(14)
    assert out.getvalue() == ""
    ticks(2)
    display.count(1024, 2048, "completions")
    ticks(16)
    display.status("update")
    display.line("a message")
    ticks(16)
    display.close()
    ticks(40)  # nothing is under way
    assert out.getvalue().splitlines() == [
        "rollout: 8 of 64 completions, 14s",
        "rollout: 1,024 of 2,048 completions, 30s",
        "a message",
        "update: 15s",
    ]


def test_how_far_compiling_is():
    out, now = io.StringIO(), [0.0]
    display = Display(20, 0, Console(file=out, width=40), clock=lambda: now[0])
    display.status("compile")
    shown = []
    for progress in (
        Progress(0, 3, 1.0, None, is_all=False),
        Progress(1, 9, 20.0, None, is_all=True),
        Progress(4, 9, 40.0, 65.0, is_all=True),
        Progress(9, 9, 90.0, 0.0, is_all=True),
    ):
        display.programs(progress)
        shown.append(display._doing())
    assert shown == [
        "compile  0 of 3 programs so far",
        "compile  1 of 9 programs",
        "compile  4 of 9 programs, about 1m05s left",
        "compile",
    ]
    assert out.getvalue() == "compiled 9 programs in 1m30s, for all of the run\n"


def test_a_short_compilation_is_not_shown():
    out = io.StringIO()
    display = Display(20, 0, Console(file=out, width=40), long_s=3600.0)
    display.compiling(None)
    waiting = display._timer
    display.compiling(0.1)
    waiting.join()  # it was called off
    assert out.getvalue() == ""


def test_the_panel_shows_a_long_compilation():
    """It begins at 10 and is looked at at 11 (too short to show), at 55, and when it is over."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    now = [0.0]
    display = Display(20, 0, console, clock=lambda: now[0])
    display.status("update")
    shown = []
    for now[0], event in ((10.0, [None]), (11.0, []), (55.0, []), (56.0, [46.0])):
        for seconds in event:
            display.compiling(seconds)
        shown.append(display._doing())
    display.close()
    assert shown == ["update", "update", "update  compiling for 45s", "update"]


def test_no_time_is_promised_before_the_first_step_and_after_the_last():
    out = io.StringIO()
    display = Display(20, 0, Console(file=out, width=40), clock=clock_of(100.0, 110.0, 120.0))
    display.metrics(0, {"eval/accuracy": 0.25, "time/step_s": 8.0, "time/eval_s": 7.9})
    display.metrics(20, {"eval/accuracy": 0.5})
    assert out.getvalue().splitlines() == [
        "step 0/20  held-out 0.250  8.0 s (eval 7.9)",
        "step 20/20  held-out 0.500",
    ]


def test_live_panel_on_a_terminal():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    display = Display(20, 0, console)
    display.status("update [not markup]")
    display.metrics(5, {"reward/overall": 0.25, "time/step_s": 1.0, "time/update_s": 0.9})
    display.line("a message")
    display.close()
    text = out.getvalue()
    assert "step 5/20" in text
    assert "reward 0.250" in text
    assert "update 0.9 s" in text
    assert "a message" in text


def test_durations():
    assert [_duration(s) for s in (0.4, 59, 60, 187, 7500)] == [
        "0s",
        "59s",
        "1m00s",
        "3m07s",
        "2h05m",
    ]


def test_the_panel_has_the_phases_of_the_latest_step_alone():
    """Those of an evaluation stayed there for good, beside steps of a second."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    display = Display(8, 2, console, clock=lambda: 100.0)
    display.metrics(4, {"eval/accuracy": 0.5, "time/step_s": 8.0, "time/eval_s": 7.9})
    display.metrics(5, {"reward/overall": 0.25, "time/step_s": 1.0, "time/update_s": 0.9})
    display.metrics(5, {"reward/accuracy": 0.5})  # of no time
    with console.capture() as shown:
        console.print(display._panel())
    display.close()
    assert "update 0.9 s" in shown.get()
    assert "eval 7.9" not in shown.get()
    assert "held-out" in shown.get()
