"""Every command of the README and of the pages runs, as it stands there.

All pages share a folder, in which the names that they use (rows.jsonl, RUN, MODEL_DIR, ...) are a
small run, the demo's clips and miniatures of benchmarks; the page on the first hour makes most of
them. The tables below say which commands are made smaller, by further flags, and which do not run
here, and why: one that is in none of them runs as it is, or fails.
"""

import ast
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import miniatures
import pytest
import shell
from clips import write_clip
from repo import DEMO_MODEL, GOLDEN, ROOT

from evr1.cli import main as cli
from evr1.config import command, resolve

DOCS = ROOT / "docs"
PAGES = {
    str(page.relative_to(ROOT)): page
    for page in (DOCS / "first_hour.md", ROOT / "README.md", ROOT / "CONTRIBUTING.md")
    + (ROOT / "tpu" / "README.md", ROOT / "benchmarks" / "README.md")
    + tuple(sorted(set(DOCS.rglob("*.md")) - {DOCS / "first_hour.md"}))
}

# A run in a few seconds: the last flag of a name counts.
SMALL = (
    "--config.rollout.prompts=8",
    "--config.rollout.n=4",
    "--config.rollout.slots=8",
    "--config.eval.prompts=8",
    "--config.log.tensorboard=False",
)
# What the demo's model needs in a config that was written for a large one.
TINY = (
    "--config.data.video_min_pixels=1024",
    "--config.data.video_max_pixels=2304",
    "--config.data.image_min_pixels=1024",
    "--config.data.image_max_pixels=2304",
    "--config.data.video_fps=4",
    "--config.data.video_max_frames=8",
    "--config.data.max_prompt_tokens=104",
    "--config.shapes.prompt_tokens=(104,)",
    "--config.shapes.vision_rows=(4,)",
    "--config.shapes.row_patches=36",
    "--config.rollout.max_completion_tokens=24",
    "--config.rollout.window_steps=8",
    "--config.train.microbatch_tokens=2368",
    "--config.train.dtype=float32",
    "--config.train.remat=none",
    "--config.rewards.box_scale=pixels",
    "--config.canaries=False",
    "--config.num_steps=1",
)
# (what the command begins with or holds, flags that are put behind it).
SMALLER = (
    (r"^evr1 make_demo ", "--train 24 --heldout 8"),
    (r"^evr1 train --config=my.py --config.workdir=runs/one$", "--config.num_steps=2"),
    (r"^evr1 train --config=my.py .*num_steps=24", "--config.num_steps=3 --config.canaries=False"),
    (r"^evr1 plan ", "--estimate"),
    (r"judge RUN ", "--limit 0"),  # counts, and asks nothing
    (r"evals prepare (lvbench|video_mme|docs)", "--allow-missing"),
    (
        r"^evr1 evaluate --config=eval_video",
        "--config.preset=smoke --config.max_tokens=8 --config.limit=4",
    ),
)
# The same for the table of docs/commands.md, whose commands name no folder of media.
IN_THE_TABLE = (
    (r"^evr1 (generate|score|filter|show) ", "--media_dir videos"),
    (r"^evr1 (generate|filter) ", "--max_tokens 8"),
    (r"^evr1 evaluate --config=qwen_video", "--config.data.media_dir=videos"),
    (r"^evr1 preprocess --config=qwen_video", "--config.model=HF_DIR --config.data.eval="),
    (r"^evr1 preprocess --config=qwen_video", "--config.data.train=rows.jsonl"),
    (r"^evr1 preprocess ", "--config.data.media_dir=videos --config.data.shards=SHARDS"),
    (r"^evr1 convert --run WORKDIR", "--step 2"),
    (r"^python tools/plan_recipes.py", "--only=qwen3_vl_2b:v6e-8 --estimate"),
)
# Flags that are put before what goes to every host.
DRY = r"^python tpu/launch.py (queued|gke|slurm|mpi|machines) (?!.*--dry_run)"
# Commands of training whose flags and fields are read and checked, and which then do not train:
# they differ from others that do in a machine that is not here, or in a name, or a slow test runs
# them.
CHECKED = r"^(\.\.\.|evr1 train|python -m evr1.main) "
OTHER = r"(?s)^evr1 (train|rewards) .*runs/(two|lora)"  # what that test runs
TRAINED = r"^evr1 train --config=(my.py .*runs/one|qwen_video .*runs/one$)"
NOT_HERE = {
    r"^make (demo|test|proofs|plans|newest|lint|docs|wheel)": "what CI calls, or longer than it",
    r"^python -m pip (install|wheel) ": "CI installs the package, and its wheel",
    r"^pip install ": "the same, with extras for machines that are not here",
    r"^(evr1 |python -m evr1\.)serve ": "it would not end; tests/serve starts it",
    r"^curl ": "the same: tests/serve runs it against a server",
    r"^python tools/make_demo_model.py ": "it trains for minutes",
    r"^python -m pytest ": "a test that runs tests",
}
LATER = "tail -n 1 /shared/runs/one/metrics.jsonl"  # needs jq, and a folder of Prometheus
FIRST = "docs/first_hour.md"
DONE: set[str] = set()  # pages
COMMANDS = ("evr1", "python", "make", "pip", "sbatch", "curl", "...")


def decide(argv: list[str]) -> list[str] | None:
    """What is run in the place of a command; None: nothing.

    Raises:
        ValueError: the flags of a training are wrong.
    """
    if argv[0] == "sbatch":  # Slurm is not here, the command is
        argv = shlex.split(argv[-1].replace("$SLURM_ARRAY_TASK_ID", "1"))
    line = " ".join(argv)
    if any(re.search(pattern, line) for pattern in NOT_HERE):
        return None
    argv = [word for word in argv if word != "..."]
    if re.search(CHECKED, line) and not re.search(TRAINED, line):
        return check(argv)
    if re.search(TRAINED, line) or re.search(r"^evr1 evaluate --config=(my|qwen)", line):
        argv = [*argv, *SMALL, *(TINY if "qwen_video" in line else ())]
    if re.search(DRY, line):
        argv[argv.index("--") : argv.index("--")] = ["--dry_run"]
    for pattern, flags in SMALLER:
        if re.search(pattern, line):
            argv = [*argv, *flags.split()]
    return argv


def check(argv: list[str]) -> None:
    """Reads the flags of a training as it does, and resolves them."""
    flags = [word for word in argv if word.startswith("--")]
    named = [flag for flag in flags if re.fullmatch(r"--config=[\w/]+(:[\w-]+)?", flag)]
    others = [flag for flag in flags if not flag.startswith("--config=")]
    flags = [*(named or ["--config=qwen_video"]), *others]
    config = command.read_config(flags)
    for name in ("workdir", "model"):
        config[name] = config[name] or str(DEMO_MODEL)
    resolve(config, has_paths=False)


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> Iterator[shell.Shell]:
    """A folder with the names that pages use; those of the first hour come with its page."""
    folder = tmp_path_factory.mktemp("pages") / "work"
    folder.mkdir()
    for name in ("docs", "tools", "tpu", "configs", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("Qwen3-VL-8B-Instruct", "MODEL_DIR", "HF_DIR"):
        (folder / name).symlink_to(DEMO_MODEL)
    (folder / "runs" / "eval").mkdir(parents=True)
    for name in ("RUN", "A", "B"):
        (folder / name).symlink_to(folder / "runs" / "eval")
    (folder / "runs" / "two").symlink_to(folder / "runs" / "one")
    (folder / "cases.jsonl").symlink_to(GOLDEN / "evals" / "mmvu.jsonl")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()
    for source, name in (("train", "rows"), ("heldout", "heldout")):
        (folder / f"{name}.jsonl").symlink_to(folder / "mine" / f"{source}.jsonl")
    for name in ("videos", "D"):
        (folder / name).symlink_to(folder / "mine")
    for name in ("lvbench", "mmvu"):
        miniatures.write(name, folder / "data" / name)
    miniatures.write("video_mme", folder / "DIR")
    doors = folder / "data" / "doors"
    (doors / "clips").mkdir(parents=True)
    for name in ("a", "b"):
        write_clip(doors / "clips" / f"{name}.mp4", frames=60)
    rows = re.findall(r'(?m)^\{"problem_id.*$', (DOCS / "own_benchmark.md").read_text("utf-8"))
    (doors / "questions.jsonl").write_text("\n".join(rows), "utf-8")
    scored = {"problem_type": "numerical", "answer": 3, "response": "<answer>3</answer>"}
    (folder / "in.jsonl").write_text(json.dumps(scored) + "\n")
    with shell.Shell(folder, decide, COMMANDS) as made:
        yield made


def script_of(page: Path) -> str:
    """The blocks of a page that a shell runs, in their order, and files that it shows."""
    lines = []
    for block in shell.blocks(page):
        named = re.match(r"# (\w+\.py)\b", block.text)
        if block.language == "python" and named:
            ast.parse(block.text)
            lines.append(f"cat > {named[1]} <<'THE_END'\n{block.text}THE_END")
        elif block.language == "bash" and not block.text.startswith(LATER):
            lines.append(block.text)
        elif block.language == "console":
            lines += re.findall(r"(?m)^\$ (.*)$", block.text)
    return "\n".join(lines)


@pytest.fixture(scope="module")
def first_hour(stage) -> list[shell.Ran]:
    """What the page on the first hour has run."""
    return stage.script(script_of(PAGES[FIRST]))


def with_commands() -> set[str]:
    """The pages that hold a command."""
    return {name for name, page in PAGES.items() if script_of(page)}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name in PAGES if name in with_commands()])
def test_the_commands_of_a_page_run(name, stage, request):
    script = script_of(PAGES[name])
    starts = any(word in script for word in ("runs/one", "rows.jsonl"))
    ran = request.getfixturevalue("first_hour") if name == FIRST or starts else []
    if name != FIRST:
        prepare(stage.folder, name)
        ran = stage.script(script)
    for each in ran:
        print(f"{each.status} {each.cpu_s:5.1f} s", " ".join(each.run or ["-", *each.argv])[:200])
    DONE.add(name)


def prepare(folder: Path, name: str) -> None:
    """Puts what a page starts from into the folder."""
    if name == "README.md":  # another run of the same name
        shutil.rmtree(folder / "runs" / "one")
        shutil.rmtree(folder / "shards")
    shutil.rmtree(folder / "curated", ignore_errors=True)


def test_every_block_names_its_language():
    known = {"bash", "python", "json", "text", "console", "jinja"}
    for name, page in PAGES.items():
        for block in shell.blocks(page):
            assert block.language in known, f"{name}:{block.line}"


def test_every_subcommand_has_run(stage):
    """On one page at least, where all were run; of those that end by themselves."""
    if not with_commands() - DONE:
        ran = {each.argv[1] for each in stage.ran if each.run and each.argv[0] == "evr1"}
        assert ran >= cli.COMMANDS.keys() - {"serve"}


def table() -> list[str]:
    """The commands of the table in docs/commands.md."""
    text = (DOCS / "commands.md").read_text("utf-8")
    return re.findall(r"(?m)^\| `((?:evr1|python) [^`]+)`", text)


@pytest.mark.slow
def test_the_other_trainings_of_the_first_hour_run(stage, first_hour, monkeypatch):
    monkeypatch.setitem(globals(), "TRAINED", r"^evr1 train --config=my.py")
    monkeypatch.setitem(globals(), "SMALLER", ((OTHER, "--config.num_steps=1"),))
    (stage.folder / "runs" / "two").unlink()
    for block in shell.blocks(PAGES[FIRST]):
        if block.language == "bash" and re.search(OTHER, block.text):
            stage.script(block.text)
    assert (stage.folder / "runs" / "two" / "export").exists()
    assert (stage.folder / "runs" / "lora" / "adapter").exists()


@pytest.mark.slow
def test_the_commands_of_the_table_run(stage, first_hour, monkeypatch):
    monkeypatch.setitem(globals(), "SMALLER", SMALLER + IN_THE_TABLE)
    folder = stage.folder
    for name, target in (("WORKDIR", "runs/one"), ("train.jsonl", "rows.jsonl")):
        (folder / name).symlink_to(folder / target)
    shutil.rmtree(folder / "curated", ignore_errors=True)
    for line in table():
        stage.script(line)
    assert len(table()) > 15


@pytest.mark.parametrize("pattern", NOT_HERE)
def test_what_does_not_run_is_on_a_page(pattern):
    lines = [*"\n".join(map(script_of, PAGES.values())).splitlines(), *table()]
    assert any(re.search(pattern, line.strip()) for line in lines)
