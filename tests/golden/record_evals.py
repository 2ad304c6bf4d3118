"""Records executed cases of the benchmarks' kits in a compact form, a file a task.

    python tests/golden/record_evals.py cases.jsonl [TASK ...]

A line holds a doc with its task, profile and kind, and `cases`: [response, extracted, score] each.
"""

import json
import sys
from pathlib import Path

OUT = Path(__file__).parent / "evals"
KEPT = ("error", "variant", "sha256")  # what else a case may say
UNTOLD = ("B-stvg-0087",)  # cases whose setting is in no field of theirs


def main(source: str, tasks: list[str]) -> None:
    """Writes the cases of these tasks, or of all."""
    files: dict[str, dict[str, dict]] = {}
    rows = [json.loads(line) for line in Path(source).read_text("utf-8").splitlines()]
    scorers: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        scorers.setdefault(_kind(row), set()).add(row["scorer"])
    for row in rows:
        if (tasks and row["task"] not in tasks) or row["what"] == "public_file":
            continue  # files of others, which are not here
        if row["id"] in UNTOLD:
            continue
        said = {name: row[name] for name in KEPT if name in row}
        head = {"task": row["task"], "what": row["what"], "profile": row["profile"]}
        head |= {"doc": row["doc"]} | said
        if len(scorers[_kind(row)]) > 1:  # the function tells what the case is about
            head["scorer"] = row["scorer"].rpartition("/")[2]
        groups = files.setdefault(row["task"], {})
        group = groups.setdefault(json.dumps(head), head | {"cases": []})
        group["cases"].append([row["response"], row["extracted"], row["score"]])
    OUT.mkdir(exist_ok=True)
    for task, groups in files.items():
        lines = (json.dumps(group, ensure_ascii=False) + "\n" for group in groups.values())
        (OUT / f"{task}.jsonl").write_text("".join(lines), "utf-8")


def _kind(row: dict) -> tuple[str, ...]:
    return row["task"], row["what"], row["profile"]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
