"""The command `evr1`: one line for each subcommand, the code of tools/, and quick help."""

import importlib.util
import re
import runpy
import subprocess
import sys

import pytest
from repo import ROOT

from evr1.cli import main as cli
from evr1.config import named

TOOLS = ("convert_checkpoint", "filter_by_pass_rate", "generate", "make_demo", "plan")
TOOLS += ("preprocess_videos", "score_completions")


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["evr1", *arguments])
    return cli.main()


def test_help_has_a_line_for_each_command_and_loads_little(tmp_path):
    code = (
        "import sys; from evr1.cli.main import main; sys.argv[1:] = ['--help']; main(); "
        "sys.exit(bool({'jax', 'numpy', 'ml_collections'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert all(len(line) < 80 for line in lines)
    for name, command in cli.COMMANDS.items():
        assert f"  {name:<12}{command.help}" in lines


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_is_there(name):
    module, function, _ = cli.COMMANDS[name]
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin) as file:
        assert f"\ndef {function}(" in file.read()


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_is_the_same_code(name):
    """What tools/NAME.py runs is what the command runs."""
    made = runpy.run_path(str(ROOT / "tools" / f"{name}.py"))["main"]
    assert made.__module__ == f"evr1.cli.{name}"
    assert (made.__module__, "main") in {(c.module, c.function) for c in cli.COMMANDS.values()}


def test_a_command_gets_its_arguments_and_gives_its_status(monkeypatch, capsys, tmp_path):
    assert run(monkeypatch, "report", str(tmp_path)) == 1
    assert capsys.readouterr().err.startswith(f"report: {tmp_path}/metrics.jsonl")
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "report", "--help")
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: evr1 report [-h] [--serve]")


def test_an_interrupt_is_a_line_and_130(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.importlib, "import_module", interrupted)
    assert run(monkeypatch, "plan") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_misspelt_command_is_told(monkeypatch, capsys):
    assert run(monkeypatch, "genrate") == 2
    assert "evr1: no command 'genrate'; did you mean generate?" in capsys.readouterr().err
    assert run(monkeypatch) == 2
    assert run(monkeypatch, "--version") == 0


def written_commands():
    """(command, its arguments) of every `evr1 ...` in the pages, lines that go on joined."""
    found = set()
    for page in (ROOT / "README.md", ROOT / "tpu" / "README.md", *(ROOT / "docs").rglob("*.md")):
        text, *blocks = page.read_text().replace("\\\n", " ").split("```")
        prose, code = text + "".join(blocks[1::2]), "\n".join(blocks[::2])
        calls = re.findall(r"`evr1 ([a-z_]+)([^`]*)`", prose)
        for name, rest in calls + re.findall(r"^evr1 ([a-z_]+)(.*)$", code, re.M):
            found.add((name, rest.strip()))
    return sorted(found)


def test_what_the_pages_write_is_there(monkeypatch, capsys):
    """Commands, the flags of those that have a parser, and the names of configs."""
    written = written_commands()
    assert len(written) > 20
    helps = {}
    for name, rest in written:
        assert name in cli.COMMANDS
        for config in re.findall(r"--config=([\w/]+)(?=[ :]|$)", rest):
            assert config in {*named.names(), "CONFIG"}, rest
        if name in ("train", "evaluate", "plan", "benchmarks"):
            continue
        if name not in helps:
            with pytest.raises(SystemExit):
                run(monkeypatch, name, "--help")
            helps[name] = set(re.findall(r"--\w+", capsys.readouterr().out))
        assert set(re.findall(r"--\w+", rest)) <= helps[name], f"{name} {rest}"
