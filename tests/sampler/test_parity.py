"""Greedy tokens and their log-probabilities against transformers' generate."""

import numpy as np
import pytest
import sampler_rig as rig
from hf import load_torch
from models_oracle import CASES, config, hf_inputs, hf_model, prompts, write_hf_dir

from evr1.batch.shapes import ShapeTable
from evr1.models import load_model
from evr1.models.io import hf
from evr1.sampler import Sampling

torch = load_torch()
pytestmark = pytest.mark.parity

TOKENS = 64
BANNED = (90, 91)


@pytest.fixture(scope="module")
def greedy(tmp_path_factory):
    """Greedy completions of all cases by our sampler, two groups at a time."""
    path = write_hf_dir(tmp_path_factory.mktemp("hf") / "model", config())
    model = load_model(str(path))
    examples = [rig.as_example(p, i) for i, p in enumerate(prompts())]
    shapes = ShapeTable(
        prompt_tokens=(max(len(e.tokens) for e in examples),),
        vision_rows=(12,),
        row_patches=28,
        completion_tokens=TOKENS,
    )
    sampler = rig.sampler(n=1, slots=2, window=16, model=model, shapes=shapes)
    sampling = Sampling(temperature=0, max_tokens=TOKENS, banned_ids=BANNED)
    params = hf.load_params(path, model)
    return sampler.generate(params, examples, range(len(examples)), sampling)


@pytest.fixture(scope="module")
def reference():
    return hf_model(config())


def generate(reference, prompt) -> tuple[np.ndarray, np.ndarray]:
    """transformers' greedy tokens and their log-probabilities."""
    with torch.no_grad():
        out = reference.generate(
            **hf_inputs(prompt, np.zeros(0, np.int32)),
            do_sample=False,
            max_new_tokens=TOKENS,
            suppress_tokens=list(BANNED),
            output_logits=True,
            return_dict_in_generate=True,
            eos_token_id=None,
            pad_token_id=0,
        )
    tokens = out.sequences[0, len(prompt.tokens) :]
    full = torch.stack(out.logits)[:, 0].log_softmax(-1)
    return tokens.numpy(), full.gather(1, tokens[:, None])[:, 0].numpy()


@pytest.mark.parametrize("case", CASES)
def test_greedy_tokens_equal_transformers(greedy, reference, case):
    index = list(CASES).index(case)
    tokens, logprobs = generate(reference, prompts()[index])
    np.testing.assert_array_equal(greedy.completions[index, 0], tokens)
    np.testing.assert_allclose(greedy.logprobs[index, 0], logprobs, atol=1e-4)


def test_another_weight_gives_other_tokens(greedy, reference):
    """The negative twin: greedy decoding of 64 tokens notices one row of one matrix."""
    index = list(CASES).index("text")
    head = reference.lm_head.weight
    with torch.no_grad():
        row = head[int(greedy.completions[index, 0, 3])]
        row.neg_()
        tokens, _ = generate(reference, prompts()[index])
        row.neg_()
    assert (greedy.completions[index, 0] != tokens).any()
