"""Programs: right if they pass the row's tests, which run in a sandbox."""

import ast
import json
import math
import re
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evr1.rewards import parse
from evr1.rewards.base import Task, Verdict
from evr1.rewards.programs import sandbox, scripts

TEST_FIELDS = ("tests", "test", "test_list", "input_output")  # the first that holds something
FUNCTION_FIELDS = ("fn_name", "func_name", "entry_point")
SOLUTION_FIELDS = ("solution", "solutions", "canonical_solution", "code")
PROBLEM_FIELDS = ("prompt", "starter_code")  # beside the problem itself
LANGUAGE_FIELDS = ("language", "lang")
MAX_TESTS = 100

_FENCE = re.compile(
    r"^[ \t]*(```|~~~)(?P<language>[^\n`]{0,40})\n(?P<code>.*?)(?:^[ \t]*\1|\Z)",
    re.DOTALL | re.MULTILINE,
)
_DEFINITION = re.compile(r"(?m)^(?:async )?(?:def|class) ")
_BINDING = re.compile(
    r"(?m)^(?:(?:async )?(?:def|class) (\w{1,80})|(\w{1,80})\s{0,4}=(?!=)"
    r"|from [\w.]{1,80} import (\w{1,80}))"
)
_WORD = re.compile(r"\w+")
_LABEL = re.compile(r"\A\s*python3?[ \t]*\n")  # of a fence that is gone
_ENDS = re.compile(r"\A\s{0,9}\[BEGIN\]|\[DONE\]\s{0,9}\Z")  # of a program after examples
_INPUT = re.compile(r"\binput\(|\bstdin\b|\bopen\(0")
_PYTHON = re.compile(r"(?i)\s{0,4}(?:python|py)[\d.]*\s*")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")


class Run(NamedTuple):
    """One run of the whole program."""

    stdin: str
    stdout: str


class Truth(NamedTuple):
    """The tests of a row's programs: runs, calls and scripts, or one equal program."""

    runs: tuple[Run, ...] = ()
    tests: tuple[Mapping[str, Any], ...] = ()  # see roles.py
    program: str = ""


class Code(NamedTuple):
    """A program as a response gives it."""

    text: str
    is_raw: bool  # alone in its tag, as the prompt asks


def score(response: str, task: Task, limit_s: float = sandbox.LIMIT_S) -> Verdict | None:
    """Returns 1 if all tests pass, else 0; with `partial: true` in the row, the share that passes.

    None where there is no program, or a text that is none.

    Args:
        response: the model's whole text.
        task: the row.
        limit_s: of all tests together.

    Raises:
        ValueError: the tests cannot be read, or there is no sandbox here.
    """
    truth = read_truth(task)
    sandbox.check_platform()
    code = find_code(response)
    if code is None:
        return None
    passed = _passed(code.text, truth, task.extra.get("partial") is True, limit_s)
    return None if passed is None else Verdict(passed, code.is_raw, code.text)


def find_code(response: str) -> Code | None:
    """Returns the program in the answer tag, in its last fenced block if there is one there.

    Without a tag, the last fenced block after the reasoning, or all of the text if it is a program.
    """
    tagged = parse.answer_tag(response)
    text = parse.after_reasoning(response) if tagged is None else tagged
    fenced = _fenced(text or "")
    if fenced is None and tagged is None:
        bare = textwrap.dedent(_ENDS.sub("", text or "").strip("\n"))
        return Code(bare, is_raw=False) if is_program(bare) else None
    code = Code(tagged or "" if fenced is None else fenced, is_raw=fenced is None)
    text = textwrap.dedent(_LABEL.sub("", code.text).strip("\n"))
    return code._replace(text=text) if text.strip() else None


def _fenced(text: str) -> str | None:
    """Returns the last fenced block, of those marked as Python where some are.

    One that only calls what earlier ones define is an example of use. None where the first fence
    stands within a text of the program.
    """
    blocks = list(_FENCE.finditer(text))
    if not blocks:
        return None
    before = text[: blocks[0].start()]
    if any(before.count(quotes) % 2 for quotes in ('"""', "'''")):
        return None
    marked = [block for block in blocks if _PYTHON.fullmatch(block["language"])]
    return _last_program([textwrap.dedent(b["code"]) for b in marked or blocks], bool(marked))


def _last_program(codes: Sequence[str], is_python: bool) -> str:
    """Returns the last block but for examples of use and, where none is marked, outputs."""
    bound = [{name for m in _BINDING.findall(code) for name in m if name} for code in codes]
    first: dict[str, int] = {}  # the block that binds a name first
    for i, names in enumerate(bound):
        first |= {name: i for name in names if name not in first}
    defining = [bool(_DEFINITION.search(code)) for code in codes]
    definition = defining.index(True) if any(defining) else len(codes)
    for i in range(len(codes) - 1, 0, -1):
        words = set(_WORD.findall(codes[i])) - bound[i]
        is_use = not is_python and definition < i
        is_use = is_use or any(first.get(word, i) < i for word in words)
        if defining[i] or _INPUT.search(codes[i]) or not is_use:
            return codes[i]
    return codes[0]


def _passed(code: str, truth: Truth, is_partial: bool, limit_s: float) -> float | None:
    """Returns the share of tests passed, 0 or 1 unless `is_partial`; None if it is no program."""
    if truth.program:
        same = sandbox.is_same_program(code, truth.program, limit_s)
        return None if same is None else float(same)
    if truth.tests:
        exit_code, marks = sandbox.run_judged(code, truth.tests, is_partial, limit_s)
        count = len(truth.tests)
        if exit_code == sandbox.NOT_A_PROGRAM:
            return None
    else:
        deadline, marks, count = time.monotonic() + limit_s, [], len(truth.runs)
        for run in truth.runs:
            left = deadline - time.monotonic()
            exit_code, output = sandbox.run_main(code, run.stdin, left) if left > 0 else (None, "")
            if exit_code == sandbox.NOT_A_PROGRAM:
                return None
            marks.append(exit_code == 0 and is_same_output(output, run.stdout))
            if not marks[-1] and not is_partial:
                break
    share = sum(marks) / count
    return share if is_partial else float(share == 1)


def is_same_output(output: str, truth: str) -> bool:
    """Returns whether two outputs agree, line by line.

    Space at the ends of lines and empty lines at the end do not count; numbers written with a
    decimal point or an exponent agree to 1e-6.

    >>> is_same_output("0.3333333 ok\\n", "0.33333333 ok"), is_same_output("1 2", "1\\n2")
    (True, False)
    """
    a, b = (text.rstrip().splitlines() for text in (output, truth))
    return len(a) == len(b) and all(map(_is_same_line, a, b))


def _is_same_line(line: str, truth: str) -> bool:
    line, truth = line.rstrip(), truth.rstrip()
    if line == truth:
        return True
    a, b = line.split(), truth.split()
    if len(a) != len(b) or not any(map(_is_decimal, b)):
        return False
    return all(x == y or (_is_decimal(y) and _is_near(x, y)) for x, y in zip(a, b, strict=True))


def _is_decimal(word: str) -> bool:
    return len(word) < 40 and bool(_NUMBER.fullmatch(word)) and not word.lstrip("+-").isdigit()


def _is_near(word: str, truth: str) -> bool:
    if len(word) > 40 or not _NUMBER.fullmatch(word):
        return False
    return math.isclose(float(word), float(truth), rel_tol=1e-6, abs_tol=1e-6)


def read_truth(task: Task) -> Truth:
    """Returns how a row's programs are judged.

    Raises:
        ValueError: another language, or tests that cannot be read.
    """
    for field in LANGUAGE_FIELDS:
        language = str(task.extra.get(field) or "python").strip().lower()
        if not re.fullmatch(r"(?:python|py|pypy)[ -]?[\d.]*", language):
            raise ValueError(f"{field}={task.extra[field]!r} cannot be run; only Python can")
    function = next((str(task.extra[f]) for f in FUNCTION_FIELDS if task.extra.get(f)), "")
    for field in TEST_FIELDS:
        value = _plain(task.extra.get(field))
        if value:
            return _checked(_read_tests(value, function, task, field), field)
    answer = _plain(parse.ground_truth(task.answer))
    decoded = _decoded(answer)
    if isinstance(decoded, Mapping) and "inputs" in decoded:
        return _checked(_read_tests(decoded, function, task, "answer"), "answer")
    if isinstance(answer, Mapping | list | tuple):
        raise ValueError(
            f"the answer {answer!r} is no expected output; give a text, or inputs and outputs"
        )
    text = answer if isinstance(answer, str) else str(answer)
    fenced = _fenced(text)
    if fenced is not None or is_program(text):
        return Truth(program=text if fenced is None else fenced)
    if not text.strip():
        raise ValueError("the row has no tests and its answer is empty; give the field tests")
    return Truth(runs=(Run("", text),))


def is_program(text: str) -> bool:
    """Returns whether a text is a Python program and not an output: it defines or imports."""
    if not re.search(r"(?m)^[ \t]*(?:async def|def|class|import|from|print)\b", text):
        return False
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    defining = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    return any(
        isinstance(n, defining) or (isinstance(n, ast.Expr) and isinstance(n.value, ast.Call))
        for n in tree.body
    )


def write_solution(task: Task) -> str | None:
    """Returns a program that earns 1; None if the row holds none and its tests do not tell one.

    Raises:
        ValueError: the row's truth cannot be read.
    """
    truth = read_truth(task)
    if truth.program:
        return truth.program
    sources = [task.answer, *(_plain(task.extra.get(field)) for field in SOLUTION_FIELDS)]
    for value in sources:
        value = _decoded(value)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, str) and is_program(value):
            return value
    if truth.runs:
        table = {run.stdin: run.stdout for run in truth.runs}
        return f"import sys\nprint({table!r}[sys.stdin.read()])"
    if any("script" in test for test in truth.tests):
        return None
    table = {json.dumps(t["arguments"]): t["expected"] for t in truth.tests}
    name = truth.tests[0]["function"]
    return f"import json\ndef {name}(*values):\n    return {table!r}[json.dumps(list(values))]"


def _checked(truth: Truth, field: str) -> Truth:
    count = len(truth.runs) + len(truth.tests)
    if not 0 < count <= MAX_TESTS:
        raise ValueError(f"{field} holds {count} tests; give 1 to {MAX_TESTS}")
    if not any(run.stdout.strip() for run in truth.runs) and not any(
        "script" in test or test["expected"] not in (None, [None]) for test in truth.tests
    ):
        raise ValueError(f"{field} expects nothing of any program; give outputs")
    return truth


def _read_tests(value: Any, function: str, task: Task, field: str) -> Truth:
    value = _decoded(value)
    if isinstance(value, str):
        return Truth(tests=(_script(value, _script_row(task, function), field),))
    if isinstance(value, Mapping):
        inputs, outputs = _plain(value.get("inputs")), _plain(value.get("outputs"))
        if not isinstance(inputs, list) or not isinstance(outputs, list):
            raise ValueError(f"{field} has the keys {sorted(value)}; give inputs and outputs")
        if len(inputs) != len(outputs):
            raise ValueError(f"{field} has {len(inputs)} inputs and {len(outputs)} outputs")
        pairs, function = list(zip(inputs, outputs, strict=True)), value.get("fn_name") or function
        return _calls(pairs, str(function), field) if function else _runs(pairs)
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        row = _script_row(task, function)
        return Truth(tests=tuple(_script(v, row, field) for v in value))
    if isinstance(value, list) and all(isinstance(v, Mapping) and "output" in v for v in value):
        pairs = [(_plain(v.get("input", "")), _plain(v["output"])) for v in value]
        return _calls(pairs, function, field) if function else _runs(pairs)
    raise ValueError(
        f"{field} is {str(value)[:80]!r}; give a list of input and output, or of assert statements"
    )


def _script_row(task: Task, function: str) -> scripts.Row:
    """Returns what a row says beside its test scripts."""
    imports = _decoded(_plain(task.extra.get("test_imports"))) or []
    lines = [*([imports] if isinstance(imports, str) else imports)]
    lines.append(task.extra.get("test_setup_code") or "")
    shown = [task.problem, *(_plain(task.extra.get(field)) for field in PROBLEM_FIELDS)]
    solutions = [task.answer, *(_plain(task.extra.get(field)) for field in SOLUTION_FIELDS)]
    return scripts.Row(
        function, *("\n".join(map(str, filter(None, texts))) for texts in (shown, solutions, lines))
    )


def _runs(pairs: Sequence[tuple[Any, Any]]) -> Truth:
    def text(value: Any) -> str:
        return "\n".join(map(str, value)) if isinstance(value, list) else str(value)

    return Truth(runs=tuple(Run(text(a), text(b)) for a, b in pairs))


def _calls(pairs: Sequence[tuple[Any, Any]], function: str, field: str) -> Truth:
    """Returns calls as tests; arguments in a text stand one a line, as JSON."""
    if not function.isidentifier():
        raise ValueError(f"{field}: {function!r} is no name of a function")
    tests = []
    for arguments, expected in pairs:
        try:
            if isinstance(arguments, str):
                arguments = [json.loads(line) for line in arguments.splitlines() if line.strip()]
                expected = json.loads(expected) if isinstance(expected, str) else expected
        except ValueError as e:
            raise ValueError(f"{field}: {arguments!r} is not one JSON value a line: {e}") from e
        if not isinstance(arguments, list):
            raise ValueError(f"{field}: the input {arguments!r} is no list of arguments")
        tests.append({"function": function, "arguments": arguments, "expected": expected})
    # Some sets wrap every result in a list of one.
    if all(isinstance(t["expected"], list) and len(t["expected"]) == 1 for t in tests):
        tests = [{**t, "is_wrapped": True} for t in tests]
    return Truth(tests=tuple(tests))


def _script(text: str, row: scripts.Row, field: str) -> Mapping[str, Any]:
    """Returns assert statements as a test.

    Raises:
        ValueError: nothing is tested by them, or no program can pass them.
    """
    try:
        return scripts.read(text, row)
    except ValueError as e:
        raise ValueError(f"{field}: {text.strip()[:80]!r} {e}") from e


def _decoded(value: Any) -> Any:
    """Returns JSON objects and lists in a text, decoded; anything else as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
