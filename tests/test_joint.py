"""Images beside videos: names of rows, hosts, one set of programs, no vision pass without media."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sampler_rig as rig
from collect_rig import row
from models_oracle import CASES, config, gap, jit, pack, prompts, write_hf_dir
from traces import counted

from configs import base
from evr1.batch.shapes import ShapeTable, plan_shapes
from evr1.config import resolve
from evr1.data.dataset import read_rows
from evr1.data.order import Source
from evr1.exchange import Published
from evr1.formats import problem_types
from evr1.models import load_model
from evr1.models.io.hf import load_params
from evr1.models.towers import qwen3 as tower
from evr1.parallel.mesh import make_mesh
from evr1.parallel.sharding import batch_sharding, replicated
from evr1.rewards import Score, Status
from evr1.rollout.heldout import HeldOut
from evr1.sampler import Sampling
from evr1.telemetry import perf
from evr1.types import Rollouts

VIDEO, IMAGE = ("video", (2, 4, 4)), ("image", (1, 4, 6))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_hf_dir(tmp_path_factory.mktemp("hf") / "model", config())


def signal(params, model, vision):
    """A number of what the tower gives, with weights that tell its places apart."""
    visual = model.encode(params, vision)
    return sum((x * jnp.cos(jnp.arange(x.size)).reshape(x.shape)).sum() for x in visual)


def unconditional(params, model, vision):
    """What a tower that always works gives."""
    return tower.encode(
        model.config.vision,
        params["vision"],
        vision,
        dtype=jnp.dtype(model.dtype),
        remat=model.remat,
        implementation=model.implementation,
    )


def test_with_media_the_condition_changes_no_bit(directory):
    """What the tower gives, bit for bit; another pixel is told."""
    model = load_model(str(directory))
    params = load_params(directory, model)
    f = jit(lambda p, v: model.encode(p, v))
    g = jit(lambda p, v: unconditional(p, model, v))
    vision = pack(prompts(["image"]))[0].vision
    got, want = f(params, vision), g(params, vision)
    assert all(np.array_equal(x, y) for x, y in zip(got, want, strict=True))
    vision.patches[0, 0, 0, 0] ^= 1  # the negative twin
    assert not np.array_equal(f(params, vision).embeds, want.embeds)


def test_eight_devices_see_media_where_one_does(directory):
    """Groups lie on four devices: some with media, all, and none, in one program of a mesh."""
    model = dataclasses.replace(load_model(str(directory)), remat="none")
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    places = model.shardings(mesh)
    params = load_params(directory, model)
    f = jax.value_and_grad(signal)
    (on_one, ones), (on_many, manys) = counted(f), counted(f)
    one = jit(on_one, static_argnums=1)
    with jax.set_mesh(mesh):
        spread_params = jax.device_put(params, places)
        many = jit(on_many, static_argnums=1, out_shardings=(replicated(mesh), places))
    for cases in (("text", "image") * 2, tuple(CASES)[1:] + ("image",), ("text",) * 4):
        vision = pack(prompts(cases), rows=4)[0].vision
        want = one(params, model, vision)
        with jax.set_mesh(mesh):
            got = many(spread_params, model, jax.device_put(vision, batch_sharding(mesh)))
        assert gap(*map(np.atleast_1d, map(np.asarray, (got[0] + 1, want[0] + 1)))) < 1e-4
        for x, y in zip(*(jax.tree.leaves(z[1]["vision"]) for z in (got, want)), strict=True):
            x, y = np.asarray(x), np.asarray(y)
            assert np.abs(x - y).max() <= 1e-4 * np.abs(y).max()
        assert bool(want[0] != 0) == (set(cases) != {"text"})
    assert len(manys) == len(ones) == 1


def test_other_media_compile_nothing_in_the_sampler(directory):
    """After one text-only call: images, clips, both and all together run the same programs."""
    calls = [[(5,), (9,)], [(2, IMAGE, 4)] * 2, [(4, VIDEO, 3)] * 2]
    calls += [[(3, IMAGE, 2, VIDEO, 5)] * 2, [(5,), (2, IMAGE, 4), (4, VIDEO, 3)]]
    # No other test has this window, so the first call compiles.
    sampler, sampling = rig.sampler(prefill_groups=2, window=5), Sampling(max_tokens=8, seed=5)
    counts = []
    with perf.CompileCounter() as counter:
        for parts in calls:
            examples = [rig.example(p, seed) for seed, p in enumerate(parts)]
            sampler.generate(rig.params(), examples, range(len(examples)), sampling)
            counts.append(counter.count)
    assert counts[0] > 0
    assert counts == [counts[0]] * len(calls)


def test_text_alone_samples_the_same_from_shapes_without_vision_rows():
    """A data set without media has a bucket of 0 vision rows; so may a batch beside media."""
    examples = [rig.text_example(tokens, i) for i, tokens in enumerate([[5, 6], [7, 8, 9]])]
    none = ShapeTable((48,), vision_rows=(0,), row_patches=4, completion_tokens=32)
    got = [
        rig.sampler(shapes=shapes).generate(
            rig.params(), examples, [0, 1], Sampling(max_tokens=8, seed=5)
        )
        for shapes in (none, rig.SHAPES)
    ]
    np.testing.assert_array_equal(got[0].completions, got[1].completions)
    np.testing.assert_allclose(got[0].logprobs, got[1].logprobs, atol=2e-5)


def test_shapes_of_rows_without_media():
    """Prompts of 3 and 40 tokens: buckets in steps of 32, no vision rows, a row of one token."""
    made = plan_shapes(
        resolve(base.get_config(), has_paths=False).shapes,
        np.array([3, 40]),
        [np.zeros((0, 3), int)] * 2,
        merge_size=rig.GEOMETRY.merge_size,
        max_prompt_tokens=64,
        completion_tokens=8,
    )
    assert made.vision_rows == (0,)
    assert made.row_patches == 4
    assert made.prompt_bucket(40) == 64


def write_rows(path, ids):
    fields = {"problem": "q", "answer": "1", "problem_type": "numerical"}
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(fields | {"problem_id": i}) + "\n" for i in ids))
    return str(path)


def test_problem_ids_that_sources_share_get_the_name_of_the_file(tmp_path):
    """7 is in both, 8 and 9 in one; two files called a.jsonl are told apart by their paths."""
    files = [
        write_rows(tmp_path / name, ids) for name, ids in [("a.jsonl", "78"), ("b.jsonl", "79")]
    ]
    same = write_rows(tmp_path / "sub" / "a.jsonl", "79")

    def load(*paths):
        c = base.get_config()
        c.data.sources = tuple((path, 0.5) for path in paths)
        read = read_rows(resolve(c, has_paths=False).data, problem_types.canonical)
        return read.train, read.sources

    made, sources = load(*files)
    assert [r.problem_id for r in made] == ["a/7", "8", "b/7", "9"]
    assert sources == [Source(2, 0.5), Source(2, 0.5)]
    made, _ = load(files[0], same)
    assert len({r.problem_id for r in made}) == 4
    assert [r.problem_id for r in made][1::2] == ["8", "9"]


def test_held_out_accuracy_by_what_rows_show():
    """Two clips, of which one is right, and two texts, of which one is right and one is lost."""
    rows = [row(i, ("a.mp4",) if i < 2 else ()) for i in range(4)]
    batches = [types.SimpleNamespace(row=r, host=0) for r in rows[:3]]

    class Once(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    tokens = np.zeros((3, 1, 3), np.int32)
    lengths = np.full((3, 1), 3, np.int32)
    rollouts = Rollouts(tokens, tokens.astype(np.float32), lengths, np.ones((3, 1), bool))
    actor = types.SimpleNamespace(
        generate=lambda *_, **__: rollouts,
        texts=lambda _: [""] * 3,
        processor=types.SimpleNamespace(prompt_text=lambda row: row.problem, think_open=False),
    )
    scores = [Score(x, x, 1.0, Status.OK) for x in (1.0, 0.0, 1.0)]
    heldout = HeldOut(
        rows, lambda: Once([batches]), actor, sampling=None, slots=3, score=lambda *_: scores
    )
    metrics, records = heldout.evaluate(Published(None, 7), step=5)
    assert metrics["eval/accuracy/modality/video"] == 0.5
    assert metrics["eval/accuracy/modality/text"] == 0.5
    assert metrics["eval/rows/modality/video"] == metrics["eval/rows/modality/text"] == 2
    assert metrics["eval/accuracy"] == 0.5
    assert metrics["eval/failed_rows"] == 1
    assert [(r.step, r.split, r.weight_version, r.problem_id) for r in records] == [
        (5, "eval", 7, str(i)) for i in range(3)
    ]
