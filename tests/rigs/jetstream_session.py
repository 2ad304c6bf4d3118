"""Drives our engine through JetStream's orchestrator and writes what came out, for test_jetstream.

A process of its own: JetStream's threads kill theirs on any error, and its import changes the root
logger. Use: python jetstream_session.py OUT.json
"""

import asyncio
import json
import pathlib
import sys
import types

import jax

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import sampler_rig as rig

from evr1.sampler import Engine, Sampling
from evr1.sampler.jetstream import serve

END = (3, 40, 41, 60, 80)
PROMPTS = [[5, 6, 7], [9] * 11, [1, 2], [50, 51, 52, 53], [8, 9, 10, 30, 31]]
CASES = {
    "greedy": ({"temperature": 0.0}, 1, 6, 6),
    "sampled": ({"seed": 3}, 4, 12, 12),
    "greedy row": ({"seed": 3, "greedy_rows": 1}, 4, 12, 12),
    "own limit": ({"seed": 3}, 1, 12, 5),  # max_tokens of the requests, under the engine's
}


class Text:
    """A tokenizer whose words are token ids."""

    pad_id = 0
    end_ids = END

    def tokenize(self, text):
        return [int(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(map(str, ids)) + " "


def prepare_jetstream():
    """Stands in for what 0.2.2 needs and a test does not: seqio, and a function JAX has removed."""
    seqio, vocabularies = types.ModuleType("seqio"), types.ModuleType("seqio.vocabularies")
    vocabularies.Vocabulary = vocabularies.SentencePieceVocabulary = object
    seqio.vocabularies = vocabularies
    sys.modules.update({"seqio": seqio, "seqio.vocabularies": vocabularies})
    jax.tree_map = jax.tree_util.tree_map


def engine(options, window, limit) -> Engine:
    sampling = Sampling(max_tokens=limit, end_ids=END, banned_ids=(90, 91), **options)
    return Engine(
        rig.model(),
        sampling,
        n=2,
        slots=2,
        prompt_tokens=16,
        completion_tokens=12,
        window=window,
    )


async def ask(orchestrator, pb2, prompt, max_tokens, as_text) -> list:
    """The samples of one request: token ids, or text."""
    content = {"token_content": pb2.DecodeRequest.TokenContent(token_ids=prompt)}
    if as_text:
        words = " ".join(map(str, prompt))
        content = {"text_content": pb2.DecodeRequest.TextContent(text=words)}
    samples = [[], []]
    async for response in orchestrator.Decode(pb2.DecodeRequest(max_tokens=max_tokens, **content)):
        for sample, part in zip(samples, response.stream_content.samples, strict=True):
            sample += [int(w) for w in part.text.split()] if as_text else list(part.token_ids)
    return samples


def through_jetstream(options, window, limit, max_tokens, as_text) -> list:
    from jetstream.core import orchestrator as lib
    from jetstream.core.proto import jetstream_pb2
    from jetstream.engine import engine_api

    served = serve(engine(options, window, limit), rig.params(), text=Text(), geometry=rig.GEOMETRY)
    assert isinstance(served, engine_api.Engine)
    params = served.load_params()
    driver = lib.Driver([served], [served], [params], [params], interleaved_mode=True)
    orchestrator = lib.LLMOrchestrator(driver)

    async def ask_all():
        calls = [ask(orchestrator, jetstream_pb2, p, max_tokens, as_text) for p in PROMPTS]
        answers = await asyncio.gather(*calls)
        # Before the event loop closes: JetStream's thread still tells it that the last one is done.
        await asyncio.to_thread(driver.stop)
        return answers

    return asyncio.run(ask_all())


def directly(options, limit) -> list:
    """The same prompts through our own event loop; the end token dropped, as JetStream does."""
    examples = [rig.text_example(p, i) for i, p in enumerate(PROMPTS)]
    sampling = Sampling(max_tokens=limit, end_ids=END, banned_ids=(90, 91), **options)
    got = rig.sampler(n=2, slots=2, window=4).generate(rig.params(), examples, range(5), sampling)
    real = got.lengths - got.finished
    return [
        [row[:k].tolist() for row, k in zip(rows, lengths, strict=True)]
        for rows, lengths in zip(got.completions, real, strict=True)
    ]


def main() -> None:
    prepare_jetstream()
    out = {}
    for name, (options, window, limit, max_tokens) in CASES.items():
        want = directly(options, limit)
        want = [[row[:max_tokens] for row in rows] for rows in want]
        got = through_jetstream(options, window, limit, max_tokens, as_text=name == "greedy")
        out[name] = {"jetstream": got, "ours": want}
    out["tensorflow"] = "tensorflow" in sys.modules
    pathlib.Path(sys.argv[1]).write_text(json.dumps(out))


if __name__ == "__main__":
    main()
