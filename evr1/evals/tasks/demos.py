"""The six demonstrations of VideoReasonBench: what a plan does to them, and what it should do.

A plan starts from the hidden end of the video: its last state where the start was shown, else its
first. Boards are lists of rows; in sliding puzzles (hrd) row 0 is the lowest, with the last letter.
Piles are listed from the bottom: cards are added at the end and removed at the start.
"""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

State = Any  # a board, or path, pile or cup -> what is in it
Board = list[list[int]]

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # x, y
_SUITS, _RANKS = ("Hearts", "Clubs", "Diamonds", "Spades"), "Ace 2 3 4 5 6 7 8 9 10 Jack Queen King"
CARDS = frozenset(f"{rank} of {suit}" for rank in _RANKS.split() for suit in _SUITS)
CHIPS = (5, 10, 20, 50, 100)
_LETTERS = "abcde"


class Rules(NamedTuple):
    """How a plan is judged.

    Attributes:
        skips: whether a move that cannot be made is passed over, as by the authors; else it voids
            the plan.
        flips: whether a wanted pile, which questions list from the top, is compared as it should
            be; the authors compare it with a pile that is listed from the bottom.
    """

    skips: bool
    flips: bool


AUTHORS, RIGHT = Rules(skips=True, flips=False), Rules(skips=False, flips=True)


def start(doc: Mapping[str, Any]) -> State:
    """Returns a copy of the state that a plan starts from."""
    place = 0 if doc.get("visible_time") == "end" else -1
    states = doc["states"]
    if not isinstance(states, Mapping):
        return copy.deepcopy(states[place])
    # Those of paths are told by the command that led to them, in order.
    return {
        name: list((list(each.values()) if isinstance(each, Mapping) else each)[place])
        for name, each in states.items()
    }


def play(doc: Mapping[str, Any], plan: Sequence[Any], rules: Rules) -> State | None:
    """Returns the state that a plan leads to; None where the plan is void.

    Args:
        doc: a row with demo, states, visible_time, and coords in a grid.
        plan: directions, pairs of cells, commands, or actions.
        rules: how it is judged.
    """
    state = start(doc)
    if doc["demo"] == "grid":
        coords = doc.get("coords") or [(0, 0)]
        return _grid(state, plan, coords[0 if doc.get("visible_time") == "end" else -1], rules)
    return _PLAYERS[doc["demo"]](state, plan, rules)


def goal(demo: str, question: str) -> tuple[str, State]:
    """Returns what a question wants, and of which path, pile or cup ("": of the board).

    Raises:
        ValueError: it wants nothing.
    """
    pattern, read = _GOALS[demo]
    wanted = re.search(pattern + r":\s*`([^`]+)`", question)
    if wanted is None:
        raise ValueError(f"the question {question[-80:]!r} names no goal; download it again")
    place = re.search(r"to ensure that\s*`([^`]+)` contains exactly", question)
    return place[1] if place else "", read(wanted[1])


def is_solved(doc: Mapping[str, Any], state: State, rules: Rules) -> bool:
    """Whether a state is what the question of a row wants."""
    demo = doc["demo"]
    place, wanted = goal(demo, doc["question"])
    if not isinstance(state, dict):
        cells = {
            (_LETTERS[row], str(column)): value
            for row, values in enumerate(state[::-1] if demo == "hrd" else state)
            for column, value in enumerate(values, 0 if demo == "grid" else 1)
        }
        if demo == "cup":
            return {cell for cell, value in cells.items() if value} == wanted
        return all(value == wanted.get(cell, 0) for cell, value in cells.items())
    held = state.get(place, ())
    if demo == "card":
        return held == (wanted[::-1] if rules.flips else wanted)
    return set(held) == set(wanted) if demo == "file_sys" else sorted(held) == sorted(wanted)


# Goals.


def _cells(text: str, value: Callable[[str], int]) -> dict[tuple[str, str], int]:
    """Returns the values of cells, e.g. of "(a,1): 2, (a,2): 0"."""
    found = re.findall(r"\(([a-e]),\s*(\d)\):\s*(\w+)", text)
    return {(letter, digit): value(text) for letter, digit, text in found}


def _names(text: str) -> list[str]:
    return text.split(", ")


_GOALS: dict[str, tuple[str, Callable[[str], State]]] = {
    "hrd": ("the desired number arrangement", lambda text: _cells(text, int)),
    "grid": (
        "the desired arrangement of black and white pieces",
        lambda text: _cells(text, lambda colour: int(colour == "black")),
    ),
    "cup": (
        "achieve the desired distribution of coins",
        lambda text: {(cell[0], cell[1:]) for cell in _names(text)},
    ),
    "file_sys": ("contains exactly the following files", _names),
    "card": ("contains exactly the following cards from top to bottom", _names),
    # "(order does not matter)" follows the list.
    "chip": ("contains exactly the following chips", lambda text: [int(x) for x in _names(text)]),
}


# Plans.


def _hrd(board: Board, plan: Sequence[Any], rules: Rules) -> Board | None:
    """Slides tiles into the gap."""
    for move in plan:
        cells = [(row, column) for row, line in enumerate(board) for column in range(len(line))]
        row, column = next((y, x) for y, x in cells if board[y][x] == 0)
        dx, dy = DIRECTIONS.get(move, (0, 0))
        # Row 0 is drawn at the bottom: the tile that moves up is that of the row before the gap's.
        from_row, from_column = row + dy, column - dx
        if (dx, dy) != (0, 0) and _is_on(board, from_row, from_column):
            board[row][column], board[from_row][from_column] = board[from_row][from_column], 0
        elif not rules.skips:
            return None
    return board


def _is_on(board: Board, row: int, column: int) -> bool:
    return 0 <= row < len(board) and 0 <= column < len(board[0])


def _grid(board: Board, plan: Sequence[Any], at: Sequence[int], rules: Rules) -> Board | None:
    """Moves a circle, which flips the cell that it reaches and those beside it."""
    if any(move not in DIRECTIONS for move in plan):
        return None
    x, y = at
    for move in plan:
        dx, dy = DIRECTIONS[move]
        if not _is_on(board, y + dy, x + dx):
            if not rules.skips:
                return None
            continue
        x, y = x + dx, y + dy
        for column, row in ((x, y), (x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)):
            if _is_on(board, row, column):
                board[row][column] = 1 - board[row][column]
    return board


def _cup(board: Board, plan: Sequence[Any], rules: Rules) -> Board | None:
    """Swaps what is in pairs of cells, e.g. ("a1", "b2")."""
    for pair in plan:
        cells = _pair(pair, board)
        if cells is None:
            if not rules.skips:
                return None
            continue
        (a, b), (c, d) = cells
        board[a][b], board[c][d] = board[c][d], board[a][b]
    return board


def _pair(pair: Any, board: Board) -> list[tuple[int, int]] | None:
    try:
        named = [(cell[0], cell[1]) for cell in (pair[0], pair[1])]
        cells = [tuple("abcde12345".index(char) % 5 for char in cell) for cell in named]
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    return [(a, b) for a, b in cells] if all(_is_on(board, *cell) for cell in cells) else None


def _files(state: State, plan: Sequence[Any], _: Rules) -> State | None:
    """Runs one or two commands, of which none may name a file of the other."""
    named: dict[str, set[str]] = {}
    steps = []
    for command in plan:
        verb = next((v for v in ("rm -rf", "touch") if command.startswith(v)), None)
        inside = re.search(r"\{([^}]+)\}", command)
        path = re.search(r"path\d+", command)
        if verb is None or inside is None or path is None:
            return None
        named[verb] = set(inside[1].split(","))
        steps.append((verb, path[0], inside[1].split(",")))
    if not 1 <= len(steps) <= 2 or named.get("rm -rf", set()) & named.get("touch", set()):
        return None
    for verb, path, names in steps:
        if path in state:
            kept = [name for name in state[path] if name not in names]
            state[path] = kept + (names if verb == "touch" else [])
    return state


def _cards(state: State, plan: Sequence[Any], _: Rules) -> State | None:
    """Adds cards on top of piles and removes them from the bottom."""
    for action in plan:
        words = action.split() if isinstance(action, str) else []
        card, pile = " ".join(words[1:-2]), words[-1] if words else ""
        if card not in CARDS or pile not in state:
            return None
        if words[0] == "add":
            state[pile].append(card)
        elif words[0] == "remove" and state[pile][:1] == [card]:
            del state[pile][0]
        else:
            return None
    return state


def _chips(state: State, plan: Sequence[Any], _: Rules) -> State | None:
    """Adds chips to cups and removes some that are there; "from" and "to" may be left out."""
    for action in plan:
        words = action.split() if isinstance(action, str) else []
        if len(words) < 3 or words[-1] not in state or words[1] not in map(str, CHIPS):
            return None
        chip, cup = int(words[1]), state[words[-1]]
        if words[0] == "add":
            cup.append(chip)
        elif words[0] == "remove" and chip in cup:
            cup.remove(chip)
        else:
            return None
    return state


_PLAYERS: dict[str, Callable[[State, Sequence[Any], Rules], State | None]] = {
    "hrd": _hrd,
    "cup": _cup,
    "file_sys": _files,
    "card": _cards,
    "chip": _chips,
}
