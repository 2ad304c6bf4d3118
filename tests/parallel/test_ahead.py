"""Programs that are compiled ahead: the calls proper find them, and errors come out."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from evr1.parallel.ahead import Compiler, Job, time_left
from evr1.telemetry import perf


@functools.partial(jax.jit, donate_argnums=1)
def first(x, state):
    return x @ state["w"], {"w": state["w"] + 1}


@functools.partial(jax.jit, static_argnames="scale")
def second(y, state, *, scale):
    return scale * jnp.tanh(y) + state["w"].sum()


def places():
    """Where parameters may lie: nowhere in particular, on a device, on a mesh."""
    mesh = jax.make_mesh((4, 2), ("data", "tensor"))
    certain = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    alone = jax.make_mesh((1, 1), ("data", "tensor"), devices=jax.devices()[:1])
    return [None, certain] + [
        NamedSharding(m, PartitionSpec(None, "tensor")) for m in (mesh, alone)
    ]


@pytest.mark.parametrize("place", range(4))
def test_calls_after_it_compile_nothing(place):
    """Sizes that no other test has; `second` takes what `first` returns."""
    state = {"w": jax.device_put(np.ones((24, 24 + 8 * place), np.float32), places()[place])}
    x = np.ones((8, 24), np.float32)
    compiler = Compiler()
    for _ in range(2):  # the second time finds them
        y, after = compiler.call(first, x, state)
        compiler.call(second, y, after, scale=3)
    compiler.wait()
    assert [name for name, _ in compiler.programs] == ["first", "second"]
    with perf.CompileCounter() as counter:
        out = second(*first(x, state), scale=3)
        assert counter.count == 0
        np.testing.assert_allclose(out, 3 + 2 * 24.0 * (24 + 8 * place), rtol=1e-5)
        second(x, {"w": np.ones(5 + place, np.float32)}, scale=3)
        assert counter.count == 1  # and it would be counted


def test_ones_have_the_shapes_of_a_result_and_nothing_runs():
    state = {"w": jnp.ones((3, 5))}
    compiler = Compiler()
    y, after = compiler.ones(first, np.ones((2, 3), np.float32), state)
    assert (y.shape, y.dtype, after["w"].shape) == ((2, 5), np.float32, (3, 5))
    compiler.wait()
    assert not state["w"].is_deleted()  # it was not given away


def test_static_arguments_may_be_a_mesh():
    mesh = jax.make_mesh((2, 4), ("data", "tensor"))
    made = jax.jit(lambda mesh, x: x * mesh.size, static_argnums=0)
    compiler = Compiler()
    assert compiler.call(made, mesh, np.ones(11, np.float32)).shape == (11,)
    compiler.wait()


def test_how_far_it_is_is_told():
    told = []
    compiler = Compiler(told.append, threads=1)
    for n in (5, 6, 7):
        compiler.add(second, np.ones((n, 4), np.float32), {"w": np.ones(3, np.float32)}, scale=2)
    assert [p.known for p in told] == [1, 2, 3]
    assert not any(p.is_all for p in told)
    compiler.wait()
    assert sum(p.done == 3 and p.is_all for p in told) == 1  # the end is told once
    assert (told[-1].done, told[-1].known, told[-1].is_all) == (3, 3, True)
    done = [p.done for p in told]
    assert done == sorted(done)


def test_the_error_of_a_compilation_is_raised_where_it_is_waited_for():
    compiler = Compiler()
    compiler.add(second, np.ones((9, 4), np.float32), {"w": np.ones(3, np.float32)}, scale=2)
    compiler.wait()
    next(iter(compiler._jobs.values())).error = RuntimeError("too large")
    with pytest.raises(RuntimeError, match="too large"):
        compiler.wait()


def test_after_an_error_nothing_is_under_way():
    compiler = Compiler(threads=1)

    def fail():
        with compiler:
            for n in (21, 22, 23, 24):
                compiler.add(second, np.ones((n, 4), np.float32), {"w": np.ones(3)}, scale=2)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert compiler._running == 0
    assert not compiler._waiting


def test_programs_in_order_are_compiled_one_after_the_other():
    compiler = Compiler(threads=4, is_in_order=True)
    for n in (31, 32, 33, 34):
        compiler.add(second, np.ones((n, 4), np.float32), {"w": np.ones(3)}, scale=2)
    compiler.wait()
    jobs = list(compiler._jobs.values())
    assert all(a.begun + a.seconds <= b.begun for a, b in itertools.pairwise(jobs))


def test_time_left_by_hand():
    """Two threads; a program of size 100 took 10 s, so one of 200 takes 20.

    The one that has run for 4 s has 16 to go; meanwhile 50 and 100 run on the other thread, 5 and
    10 s. One that has run for 40 s is expected to take a tenth of that more.
    """

    def job(size, begun=None, seconds=None):
        return Job("f", None, size, begun, seconds)

    jobs = [job(100, 0.0, 10.0), job(200, begun=0.0), job(50), job(100)]
    assert time_left(jobs, 4.0, threads=2) == 16.0
    assert time_left(jobs[1:], 4.0, threads=2) is None
    assert time_left([jobs[0], job(200, begun=0.0)], 40.0, threads=2) == 4.0
