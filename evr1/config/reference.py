"""The fields of a config with their defaults and meanings, as `base.py` has them.

`python -m evr1.config.reference` prints docs/config.md.
"""

import ast
import difflib
import io
import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_HEAD = """# Config fields

Made from `evr1/config/base.py` and `evr1/config/evals.py` by `python -m evr1.config.reference`:
change the comments there. Each field is a flag `--config.FIELD=VALUE`, and
`python -m evr1.main --help=optim` shows a group.
"""
_EVALS = (
    "benchmarks: the fields of `configs/eval_video.py`, for `python -m evr1.evaluate`. Their names "
    "have no group."
)


class Field(NamedTuple):
    """A field.

    Attributes:
        name: such as rollout.n.
        default: as it is written; "none, or text" of a field that is not set.
        meaning: what the comments say; empty: the comment of the field before speaks of it, too.
    """

    name: str
    default: str
    meaning: str

    @property
    def group(self) -> str:
        """What stands before the first dot; "run" where there is none."""
        return self.name.partition(".")[0] if "." in self.name else "run"

    @property
    def need(self) -> str:
        """What a value has to be: 'need a whole number, such as 8'."""
        if self.default.startswith("None"):
            return f"need {self.default}"
        kind = type(ast.literal_eval(self.default))
        return f"need {_TYPES[kind]}, such as {self.default}"


_TYPES = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a tuple",
}


class Table(NamedTuple):
    """All fields of a config.

    Attributes:
        fields: in order.
        notes: what the comments say of a group or of a section in it, by its name.
    """

    fields: list[Field]
    notes: dict[str, str]


def base_table() -> Table:
    """Returns the fields of a training's config."""
    return read(Path(__file__).with_name("base.py").read_text("utf-8"))


def evals_table() -> Table:
    """Returns the fields of a config of benchmarks."""
    return read(Path(__file__).with_name("evals.py").read_text("utf-8"))


def read(source: str) -> Table:
    """Returns what `get_config` of a source sets.

    >>> read('''def get_config():
    ...     # How many.
    ...     c.data.n = 3  # rows
    ... ''').fields
    [Field(name='data.n', default='3', meaning='How many. rows')]
    """
    comments, alone = _comments(source)
    fields, notes = list[Field](), dict[str, str]()
    for statement in _statements(source):
        above, line = list[str](), statement.lineno - 1
        while line in alone:
            above.insert(0, comments[line])
            line -= 1
        beside = [
            comments[n]
            for n in range(statement.lineno, (statement.end_lineno or 0) + 1)
            if n in comments
        ]
        name, meaning = (
            ast.unparse(statement.targets[0]).partition(".")[2],
            " ".join(above + beside),
        )
        if ast.unparse(statement.value).endswith("ConfigDict()"):
            notes[name] = meaning
        else:
            fields.append(Field(name, _default(statement.value), meaning))
    return Table(fields, notes)


def _statements(source: str) -> list[ast.Assign]:
    tree = ast.parse(source)
    body = next(
        n.body for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "get_config"
    )
    return [
        n for n in body if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Attribute)
    ]


def _comments(source: str) -> tuple[dict[int, str], set[int]]:
    """Returns the comments by line, and the lines that hold nothing else."""
    comments, alone = dict[int, str](), set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.removeprefix("#").strip()
            if token.line.strip().startswith("#"):
                alone.add(token.start[0])
    return comments, alone


_KINDS = {
    "str": "text",
    "float": "number",
    "bool": "True or False",
    "object": "object or JSON text",
}


def _default(value: ast.expr) -> str:
    if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("placeholder"):
        kind = ast.unparse(value.args[0])
        return f"None, or {_KINDS.get(kind, kind)}"
    return ast.unparse(value)


def groups(table: Table) -> dict[str, list[Field]]:
    """Returns the fields by group, in order."""
    out: dict[str, list[Field]] = {}
    for field in table.fields:
        out.setdefault(field.group, []).append(field)
    return out


def overview() -> str:
    """Returns a line for each group with the names of its fields, for --help."""
    lines = ["Fields, as --config.FIELD=VALUE; --help=GROUP says what those of a group mean:", ""]
    for group, fields in groups(base_table()).items():
        names = ", ".join(field.name.removeprefix(group + ".") for field in fields)
        lines.append(f"  {group}: {names}")
    lines += ["", "  benchmarks: the fields of configs/eval_video.py (python -m evr1.evaluate)"]
    return "\n".join(lines)


def help_of(group: str) -> str:
    """Returns the fields of a group with defaults and meanings.

    Raises:
        ValueError: no such group; names near ones.
    """
    table = evals_table() if group == "benchmarks" else base_table()
    known = {"benchmarks": table.fields} if group == "benchmarks" else groups(table)
    if group not in known:
        raise ValueError(
            f"--help={group}: no such group{did_you_mean(group, [*known, 'benchmarks'])}"
        )
    lines = [note for name, note in table.notes.items() if note and name.split(".")[0] == group]
    for field in known[group]:
        lines += [
            f"--config.{field.name}={field.default}",
            *([f"    {field.meaning}"] * bool(field.meaning)),
        ]
    return "\n".join(lines)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Returns '; did you mean rollout.n?', or what there is.

    >>> did_you_mean("rolout.n", ["rollout.n", "seed"])
    '; did you mean rollout.n?'
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
    near = near or difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if not near:  # the right name in another group
        near = [k for k in known if k.rpartition(".")[2] == name.rpartition(".")[2]][:3]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def page() -> str:
    """Returns docs/config.md."""
    table = base_table()
    parts = [_HEAD]
    for group, fields in groups(table).items():
        notes = [n for name, n in table.notes.items() if n and name.split(".")[0] == group]
        parts += [f"## {group}\n", *(f"{note}\n" for note in notes), _rows(fields)]
    parts += [f"## benchmarks\n\n{_EVALS}\n", _rows(evals_table().fields)]
    return "\n".join(parts)


def _rows(fields: Sequence[Field]) -> str:
    lines = ["| field | default | meaning |", "|---|---|---|"]
    for field in fields:
        meaning = field.meaning.replace("|", "\\|")
        default = field.default.replace("|", "\\|")
        lines.append(f"| `{field.name}` | `{default}` | {meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
