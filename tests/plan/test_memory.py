"""What compilers say when memory ends, and host callbacks in a program's text."""

import dataclasses

import jax
import numpy as np
import pytest

from evr1.plan import memory

OUT_OF_HBM = (
    "Ran out of memory in memory space hbm. Used 134.20G of 95.74G hbm. Exceeded hbm by 3G."
)
TEMPORARIES = """RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO
temporaries (34.67G) exceeds available HBM (31.25G)."""


@pytest.mark.parametrize(
    ("message", "parts", "limit"),
    [
        (OUT_OF_HBM, (5.0, 0, 129.20), 95.74),
        (TEMPORARIES.replace("\n", " "), (5.0, 0, 29.67), 31.25),
    ],
)
def test_out_of_memory_is_read_from_the_message(message, parts, limit):
    """Of a program whose arguments are 5 GiB."""
    error = jax.errors.JaxRuntimeError(message)
    got, most = memory.out_of_memory("gradient", error, 5 * 2**30)
    assert np.array(got) / 2**30 == pytest.approx(parts)
    assert most / 2**30 == pytest.approx(limit)


def test_another_refusal_is_one_line():
    error = jax.errors.JaxRuntimeError("INTERNAL: Mosaic failed\nto compile: a kernel")
    with pytest.raises(ValueError, match="the compiler refuses decode: INTERNAL: Mosaic failed to"):
        memory.out_of_memory("decode", error, 0)


def test_a_counter_beside_a_full_chip_fits():
    """What libtpu has compiled fills the chip at most; 12 bytes of an optimizer's counters too."""
    limit = 31 * 2**29
    full = memory.Compiled("x", 0, 0, limit, 12, limit + 12, limit, 0, False, {}, {}, 0.0, 0.0)
    assert full.fits
    assert not dataclasses.replace(full, total=limit + 2**30).fits


def test_a_host_callback_would_be_seen():
    def plain(x):
        return x + 1

    def calls_back(x):
        jax.debug.callback(print, x)
        return x + 1

    seen = [
        bool(memory.HOST_CALL.search(jax.jit(f).lower(1.0).as_text())) for f in (plain, calls_back)
    ]
    assert seen == [False, True]
