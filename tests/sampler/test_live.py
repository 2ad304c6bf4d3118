"""Rows that come and go, each in its own way: they get what a sampler gives them."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import sampler_rig as rig
from repo import DEMO_MODEL

from evr1.data.processor import Processor
from evr1.sampler.actor import Actor
from evr1.sampler.engine import read_prompts
from evr1.sampler.live import Ask, Head, Live, Room, read_questions
from evr1.sampler.prefixes import Kept, Prefixes
from evr1.sampler.sampling import Sampling
from evr1.types import Questions

TAILS = ((5, 6, 7), (9,), (11, 12, 13, 14, 15))


@functools.cache
def words() -> Processor:
    """What an actor asks of a processor; nothing ends a completion but its limit."""
    demo = Processor.from_hf(str(DEMO_MODEL))
    none = {"end_ids": (), "banned_ids": (), "pad_id": 0}
    return dataclasses.replace(demo, geometry=rig.GEOMETRY, **none)


def head(seed: int, loads: list | None = None) -> Head:
    example = rig.example([3, ("video", (2, 4, 6)), 2], seed)

    def load():
        if loads is not None:
            loads.append(seed)
        return example

    return Head(b"head %d" % seed, len(example.tokens), load)


def live(asks, prefixes=None, **options) -> Live:
    room = functools.reduce(Room.with_, map(Room.of, asks))
    prefixes = Prefixes(1 << 24) if prefixes is None else prefixes
    actor = Actor(rig.model(), words(), slots=options.pop("slots", 2), window=4)
    return Live(actor, rig.params(), room, prefixes, rows=2)


def drain(slots: Live, out: dict) -> dict:
    """Goes on until no row is left; tokens and log-probabilities of each."""
    while slots.active:
        collect(slots.turn(), out)
    return out


def collect(drawn, out: dict) -> None:
    for ask, part in drawn:
        tokens, logprobs = out.setdefault(ask, ([], []))
        tokens += part.tokens.tolist()
        logprobs += part.logprobs.tolist()


def alone(ask: Ask) -> list[int]:
    """What the event loop of training draws for the whole prompt."""
    example = ask.head.load()
    tail = np.array(ask.tail, np.int32)
    after = example.next_position + np.arange(len(tail), dtype=np.int32)
    whole = dataclasses.replace(
        example,
        tokens=np.concatenate([example.tokens, tail]),
        is_visual=np.concatenate([example.is_visual, np.zeros(len(tail), bool)]),
        positions=np.concatenate([example.positions, np.tile(after, (3, 1))], axis=1),
        next_position=int(example.next_position + len(tail)),
    )
    sampler = rig.sampler(n=ask.draw + 1, slots=1)
    rollouts = sampler.generate(rig.params(), [whole], [0], ask.how)
    return rollouts.completions[0, ask.draw, : rollouts.lengths[0, ask.draw]].tolist()


HOWS = (
    Sampling(temperature=0.0, max_tokens=9),
    Sampling(temperature=1.0, max_tokens=6, seed=5),
    Sampling(temperature=0.7, top_p=0.8, max_tokens=8, seed=6),
    Sampling(temperature=1.3, top_k=5, max_tokens=12, seed=5),
)


def test_rows_of_one_slot_draw_each_in_its_own_way():
    """Two heads, four ways, four places, some of which are used again."""
    heads = head(1), head(2)
    asks = [Ask(heads[i % 2], TAILS[i % 3], how, draw=i % 2) for i, how in enumerate(HOWS * 2)]
    slots, out, todo = live(asks), {}, list(asks)
    while todo or slots.active:
        while todo and slots.free:
            first = todo[0].head
            taken = [ask for ask in todo if ask.head is first][:2]
            todo = [ask for ask in todo if ask not in taken]
            collect(slots.admit(taken), out)
        collect(slots.turn(), out)
    assert {ask: tokens for ask, (tokens, _) in out.items()} == {ask: alone(ask) for ask in asks}
    assert slots.prefills == 2


def test_a_head_that_is_kept_is_not_loaded_again():
    loads, out = [], {}
    ask = Ask(head(1, loads), TAILS[0], HOWS[0])
    prefixes = Prefixes(1 << 24)
    slots = live([ask], prefixes)
    collect(slots.admit([ask]), out)
    again = Ask(ask.head, TAILS[0], HOWS[0])
    collect(slots.admit([again]), out)
    drain(slots, out)
    assert loads == [1]
    assert out[ask] == out[again]  # to the bit
    assert (prefixes.hits, prefixes.misses) == (1, 1)


def test_a_model_whose_cache_is_more_than_keys_prefills_what_comes_together():
    """The same tokens, and a head is read again for whoever comes later."""

    @dataclasses.dataclass(frozen=True)
    class Stateful(type(rig.model())):
        can_extend = False

    whole = {f.name: getattr(rig.model(), f.name) for f in dataclasses.fields(rig.model())}
    asks = [Ask(head(1), tail, HOWS[0]) for tail in TAILS]
    room = functools.reduce(Room.with_, map(Room.of, asks))
    actor = Actor(Stateful(**whole), words(), slots=2, window=4)
    slots, out = Live(actor, rig.params(), room, Prefixes(1 << 24), rows=2), {}
    collect(slots.admit(asks[:2]), out)
    collect(slots.admit(asks[2:]), out)
    drain(slots, out)
    assert {ask: tokens for ask, (tokens, _) in out.items()} == {ask: alone(ask) for ask in asks}
    assert slots.prefills == 2


def test_a_row_that_is_ended_frees_its_place_and_changes_no_other():
    asks = [Ask(head(1), tail, Sampling(temperature=0.0, max_tokens=30)) for tail in TAILS[:2]]
    slots, out = live(asks, slots=1), {}
    collect(slots.admit(asks), out)
    assert slots.free == []
    slots.end([asks[0]])
    drain(slots, out)
    assert out[asks[1]][0] == alone(asks[1])
    assert slots.free == [0]
    later = Ask(head(2), TAILS[2], HOWS[0])
    collect(slots.admit([later]), out)
    assert drain(slots, out)[later][0] == alone(later)


def test_the_likeliest_tokens_are_told():
    asks = [
        Ask(head(1), tail, HOWS[0], has_tops=has)
        for tail, has in zip(TAILS, (True, False), strict=False)
    ]
    slots = live(asks)
    drawn = slots.admit(asks)
    while slots.active:
        drawn += slots.turn()
    for ask, part in drawn:
        assert (part.tops is not None) == ask.has_tops
        if part.tops is not None:
            tokens, logprobs = part.tops
            assert tokens[:, 0].tolist() == part.tokens.tolist()
            np.testing.assert_allclose(logprobs[:, 0], part.logprobs, rtol=1e-5, atol=1e-6)
            assert (np.diff(logprobs, axis=1) <= 0).all()


def test_questions_behind_a_kept_prompt_are_those_of_a_prefill():
    """Logits and keys; and with another prompt's keys they are others."""
    model, params = rig.model(), rig.params()
    tokens = np.zeros((1, 3, 8), np.int32)
    for row, tail in enumerate(TAILS):
        tokens[0, row, : len(tail)] = tail
    questions = Questions(tokens, np.array([[3, 1, 5]], np.int32))
    got = []
    for seed in (1, 2):
        prompts = rig.sampler(n=3, slots=1).prompts([head(seed).load()])
        want, whole = read_prompts(model, params, prompts, questions)
        _, kv = read_prompts(model, params, prompts)
        logits, cache = read_questions(
            model, params, kv, prompts.lengths, prompts.next_positions, questions
        )
        np.testing.assert_allclose(logits, want, rtol=2e-4, atol=2e-4)
        for own, other in zip(jax.tree.leaves(cache), jax.tree.leaves(whole), strict=True):
            assert own.shape == other.shape
        for row, tail in enumerate(TAILS):
            mine, theirs = (x.questions.k[:, 0, row, : len(tail)] for x in (cache, whole))
            np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-4)
        got.append(np.asarray(logits))
    assert np.abs(got[0] - got[1]).max() > 0.1


def kept(tokens: int) -> Kept:
    return Kept(np.zeros((1, 1, tokens, 1, 1), np.int8), np.zeros(0), np.zeros(0))


def test_what_was_not_used_for_longest_goes_first():
    prefixes = Prefixes(10)
    for name in (b"a", b"b"):
        prefixes.put(name, kept(4))
    assert prefixes.get(b"a") is not None
    prefixes.put(b"c", kept(4))
    assert [name in prefixes for name in (b"a", b"b", b"c")] == [True, False, True]
    assert prefixes.nbytes == 8
    prefixes.put(b"d", kept(11))  # alone over the limit
    assert (len(prefixes), prefixes.nbytes) == (2, 8)
    prefixes.clear()
    assert (len(prefixes), prefixes.nbytes) == (0, 0)


@pytest.mark.parametrize(
    ("tokens", "room"), [((1, 1, 1), (256, 64, 64)), ((300, 65, 200), (512, 128, 256))]
)
def test_rooms_are_few(tokens, room):
    prompt, question, completion = tokens
    ask = Ask(Head(b"", prompt, lambda: rig.example([1])), (1,) * question,
              Sampling(max_tokens=completion))  # fmt: skip
    assert Room.of(ask) == room
    assert Room(*room).holds(Room.of(ask))
