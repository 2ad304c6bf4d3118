"""Rows of VideoReasonBench's six demonstrations, with plans that reach what they ask for."""

from typing import Any

_PILE = ["8 of Clubs", "Ace of Hearts", "Jack of Clubs"]
QUESTIONS = {
    "hrd": "the desired number arrangement: `(a,1): 2, (a,2): 0, (b,1): 1, (b,2): 3`?",
    "grid": "the desired arrangement of black and white pieces: "
    "`(a,0): black, (a,1): black, (b,0): white, (b,1): black`?",
    "cup": "to achieve the desired distribution of coins: `a1, b2`?",
    "file_sys": "to ensure that `path0` contains exactly the following files: `a.txt, b.py`, ...",
    "card": "to ensure that `pile0` contains exactly the following cards from top to bottom: "
    "`7 of Diamonds, Jack of Clubs, Ace of Hearts`, ...",
    "chip": "to ensure that `cup0` contains exactly the following chips: `100, 20, 5` (order ...)",
}
_STATES: dict[str, Any] = {
    "hrd": [[[1, 3], [0, 2]]],
    "grid": [[[0, 0], [0, 0]]],
    "cup": [[[1, 0], [1, 0]]],
    "file_sys": {"path0": {"init": ["x.md"], "touch path0/{a.txt}": ["a.txt", "c.md"]}},
    "card": {"pile0": [_PILE]},
    "chip": {"cup0": [[20, 100, 10]]},
}
GOLD = {
    "hrd": "left",
    "grid": "right",
    "cup": "(b1, b2)",
    "file_sys": "touch path0/{b.py} & rm -rf path0/{c.md}",
    "card": "remove 8 of Clubs from pile0, remove Ace of Hearts from pile0, "
    "remove Jack of Clubs from pile0, add Ace of Hearts to pile0, add Jack of Clubs to pile0, "
    "add 7 of Diamonds to pile0",
    "chip": "add 5 to cup0, remove 10 cup0",
}
DAMAGED = {
    "hrd": "right",
    "grid": "left, right",
    "cup": "(a1, b2)",
    "file_sys": "touch path0/{b.py}",
    "card": "remove Jack of Clubs from pile0",
    "chip": "add 5 to cup0",
}
FORMS = ("Final Answer: {}", "**Final Answer:** `{}`.", "<think>up</think>{}", "{}")


def plan_row(demo: str) -> dict[str, Any]:
    """Returns a row that asks for a plan."""
    return {
        "video": f"videos/{demo}/state3_op5_start.mp4",
        "question": QUESTIONS[demo],
        "dim": "prediction_operation",
        "demo": demo,
        "visible_time": "start",
        "answer": None,
        "num_state": 3 if demo in ("hrd", "grid", "cup") else 1,
        "num_operation": 5,
        "states": _STATES[demo],
        "coords": [[0, 0]],
        "commands": ["ls path0", "touch path0/{a.txt}"],
    }


def answer_row(demo: str) -> dict[str, Any]:
    """Returns a row that asks what is left."""
    return plan_row(demo) | {
        "video": f"videos/{demo}/state3_op12_start.mp4",
        "dim": "order_state",
        "question": "What is left?",
        "answer": "2 chips: 20, 5\n",
        "num_operation": 12,
    }
