"""Our engine under google-jetstream's own orchestrator."""

import json
import subprocess
import sys

import numpy as np
import pytest
import sampler_rig as rig
from jetstream_session import Text
from repo import ROOT

from evr1.sampler import Engine, Sampling, jetstream


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    for package in ("jetstream", "shortuuid", "tiktoken"):
        pytest.importorskip(package)
    out = tmp_path_factory.mktemp("jetstream") / "out.json"
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "rigs" / "jetstream_session.py", out],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.mark.parametrize("case", ["greedy", "sampled", "greedy row", "own limit"])
def test_the_orchestrator_gets_the_same_tokens(session, case):
    """Five requests through two slots; `greedy` as text, the others as token ids."""
    assert session[case]["jetstream"] == session[case]["ours"]
    lengths = [len(row) for rows in session[case]["ours"] for row in rows]
    assert len(set(lengths)) > 1  # some end by themselves, some at the limit


def test_it_needs_no_tensorflow(session):
    assert session["tensorflow"] is False


def test_importing_the_sampler_imports_neither():
    code = (
        "import sys, evr1.sampler, evr1.sampler.jetstream;"
        "print([m for m in ('jetstream', 'seqio', 'tensorflow', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


def test_prompt_length_must_be_one_of_jetstreams():
    engine = Engine(
        rig.model(), Sampling(), n=1, slots=1, prompt_tokens=48, completion_tokens=1024, window=1
    )
    with pytest.raises(ValueError, match="prompt_tokens=48; JetStream wants a power of two"):
        jetstream.serve(engine, {}, text=Text(), geometry=rig.GEOMETRY)


# tokens as JetStream pads them, the length it tells, and what is left of them
@pytest.mark.parametrize(
    ("padded", "true_length", "want"),
    [
        ([7, 8, 9, 0], 3, [7, 8, 9]),
        ([-1, 7, 8, 0], 3, [7, 8]),  # its begin token, which Qwen has not
        ([7, 8, 9, 4], 9, [7, 8, 9, 4]),  # cut by JetStream, which tells the uncut length
    ],
)
def test_text_prompt(padded, true_length, want):
    prompt = jetstream.text_prompt(np.array(padded), true_length, rig.GEOMETRY)
    assert prompt.lengths.tolist() == prompt.next_positions.tolist() == [len(want)]
    assert prompt.tokens[0, : len(want)].tolist() == want
    assert prompt.positions[0, 2].tolist() == list(range(4))
    assert prompt.vision.patches.shape[1] == 0
