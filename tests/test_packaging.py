"""What can be installed: minima that can be had, lists that agree, extras that are told."""

import ast
import importlib.metadata
import os
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from repo import ROOT

import evr1

SETUP = {
    node.targets[0].id: ast.literal_eval(node.value)
    for node in ast.parse((ROOT / "setup.py").read_text()).body
    if isinstance(node, ast.Assign)
    and isinstance(node.targets[0], ast.Name)
    and node.targets[0].id in ("CORE", "EXTRAS")
}
CORE = {canonicalize_name(r.name): r for r in map(Requirement, SETUP["CORE"])}


def lines_of(name):
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("-")]


def minimum(requirement):
    (bound,) = [s.version for s in requirement.specifier if s.operator == ">="] or [""]
    return bound


def needed():
    """Yields (package, requirement) of what the core brings along, of packages of the core."""
    todo, seen = list(CORE), set()
    while todo:
        name = canonicalize_name(todo.pop())
        if name in seen:
            continue
        seen.add(name)
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
                if canonicalize_name(requirement.name) in CORE:
                    yield name, requirement


def test_a_stated_minimum_can_be_had_beside_the_other_packages():
    """transformers 5.23 needs safetensors 0.8: a minimum of 0.5 would be one that nobody has."""
    for name, requirement in needed():
        ours = CORE[canonicalize_name(requirement.name)]
        stated = [s for s in requirement.specifier if s.operator == ">="] if minimum(ours) else []
        for bound in stated:
            assert bound.contains(minimum(ours)), f"{ours}, but {name} needs {bound}"


def test_requirements_are_those_of_setup():
    listed = lines_of("requirements.txt")
    assert listed == [*SETUP["CORE"], *SETUP["EXTRAS"]["jetstream"]]


def test_constraints_keep_the_minima():
    pins = [Requirement(line) for line in lines_of("constraints.txt")]
    assert CORE.keys() <= {canonicalize_name(pin.name) for pin in pins}
    for pin in pins:
        if ours := CORE.get(canonicalize_name(pin.name)):
            (version,) = [s.version for s in pin.specifier]
            assert ours.specifier.contains(version), f"{pin} against {ours}"


@pytest.mark.parametrize("extra", SETUP["EXTRAS"])
def test_an_extra_is_in_the_readme(extra):
    assert f"`{extra}`" in (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The package as a wheel has it, in a folder of its own."""
    lib = tmp_path_factory.mktemp("built")
    command = [sys.executable, "setup.py", "-q", "build_py", f"--build-lib={lib}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return lib


def files_of(folder):
    """Name -> bytes of the files of a folder, without what Python makes."""
    names = (f for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    return {str(f.relative_to(folder)): f.read_bytes() for f in names}


def test_the_package_holds_all_its_files_and_the_configs(built):
    files = files_of(built / "evr1")
    assert files == files_of(ROOT / "evr1") | {
        f"configs/{name}": text for name, text in files_of(ROOT / "configs").items()
    }


def test_an_installed_command_finds_configs_by_name(built, tmp_path):
    """Without a checkout beside it, from a folder that has nothing of evr1's."""
    code = (
        "import sys; from evr1.cli.main import main; "
        "sys.argv = ['evr1', 'train', '--config=demo_joint', '--config.num_steps=-1']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(built)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: config.num_steps is -1")


def test_the_version_stands_in_one_place():
    command = [sys.executable, "setup.py", "--version"]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert said.split()[-1] == evr1.__version__
    assert f"\nversion: {evr1.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {evr1.__version__}, " in (ROOT / "CHANGELOG.md").read_text()


def test_the_command_is_installed():
    assert '{"console_scripts": ["evr1=evr1.cli.main:main"]}' in (ROOT / "setup.py").read_text()
