"""Thinking: whose prompts leave a think block open, what turns it off, what a completion keeps."""

import dataclasses
import json
import pickle

import pytest
from repo import DEMO_MODEL, TINY
from rows_rig import make_row
from templates import PREFILLED, SWITCH, make_processor

from evr1.data.processor import Processor
from evr1.formats import chat_template, think_block
from evr1.rollout import trajectory

GUARDED = "{%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}{%- endif -%}"
EFFORT = "{{- effort | default('high') -}}{{- '<think>' if other -}}"


def ending(processor: Processor) -> str:
    """What a prompt says behind the question."""
    ids = processor.encode(make_row("How many?"), [], raw=True).tokens.tolist()
    return processor.tokenizer.decode(ids, skip_special_tokens=False).rpartition("assistant\n")[2]


@pytest.mark.parametrize(
    ("tail", "thinking", "is_open", "says"),
    [
        ("", None, False, ""),
        ("", True, False, ""),
        ("", False, False, ""),
        (PREFILLED, None, True, "<think>\n"),
        (PREFILLED, True, True, "<think>\n"),
        (SWITCH, None, True, "<think>\n"),
        (SWITCH, True, True, "<think>\n"),
        (SWITCH, False, False, "<think>\n\n</think>\n\n"),
        (GUARDED + SWITCH, None, True, "<think>\n"),
        (GUARDED + SWITCH, False, False, "<think>\n\n</think>\n\n"),
        ("{{- '<think>' if enable_thinking -}}", None, False, ""),
        ("{{- '<think>' if enable_thinking -}}", True, True, "<think>"),
        ("{{- '< Thinking >' -}}", None, True, "< Thinking >"),
        ("{{- '<think>a</think> <think>' -}}", None, True, "<think>a</think> <think>"),
    ],
)
def test_whether_a_prompt_leaves_the_block_open(tmp_path, tail, thinking, is_open, says):
    processor = make_processor(tmp_path, tail, thinking=thinking)
    assert processor.think_open is is_open
    assert pickle.loads(pickle.dumps(processor)).think_open is is_open
    assert ending(processor) == says
    asks = "First think between" in processor.prompt_text(make_row("How many?"))
    assert asks is (thinking is True)


def test_a_tag_in_the_template_s_own_system_turn_opens_nothing(tmp_path):
    processor = Processor.from_hf(str(DEMO_MODEL))
    default = "{{- '<|im_start|>system\\nWrite <think> first.<|im_end|>\\n' -}}"
    assert not dataclasses.replace(
        processor, chat_template=default + processor.chat_template
    ).think_open


@pytest.mark.parametrize(
    ("tail", "options", "says"),
    [
        (PREFILLED, {"thinking": False}, "data.thinking is False, but .* always opens a think"),
        (
            "{{- '<think>' ~ enable_thinking -}}",
            {"thinking": False},
            "opens a think block though enable_thinking is false",
        ),
        (SWITCH, {"template_variables": '{"enable_thinkin": true}'}, "it has enable_thinking"),
        (SWITCH, {"template_variables": "[1]"}, "give a JSON object"),
        (SWITCH, {"template_variables": "{"}, "no JSON"),
        (
            SWITCH,
            {"thinking": True, "template_variables": '{"enable_thinking": true}'},
            "sets enable_thinking, as data.thinking does",
        ),
        ("", {"template_variables": '{"messages": []}'}, "no variable 'messages'; it has none"),
        ("", {"template_variables": '{"eos_token": ""}'}, "no variable 'eos_token'"),
    ],
)
def test_what_a_template_cannot_do_is_one_line(tmp_path, tail, options, says):
    with pytest.raises(ValueError, match=says) as error:
        make_processor(tmp_path, tail, **options)
    assert "\n" not in str(error.value)


def test_further_variables_reach_the_template(tmp_path):
    given = '{"effort": "low", "other": true}'
    processor = make_processor(tmp_path, EFFORT, template_variables=given)
    assert (ending(processor), processor.think_open) == ("low<think>", True)
    plain = Processor.from_hf(str(tmp_path / "model"), thinking=False)
    assert (ending(plain), plain.think_open) == ("high", False)
    switched = '{"enable_thinking": false}'
    directory = tmp_path / "switch"
    directory.mkdir()
    assert not make_processor(directory, SWITCH, template_variables=switched).think_open


def test_a_system_turn_is_shown_or_refused():
    processor = Processor.from_hf(str(DEMO_MODEL))
    row = make_row("How many?", system="Count <image> twice.")
    ids = processor.encode(row, [], raw=True).tokens.tolist()
    chat = processor.tokenizer.decode(ids, skip_special_tokens=False)
    assert chat.startswith("<|im_start|>system\nCount <image> twice.<|im_end|>\n<|im_start|>user")
    assert processor.plan(row, [], raw=True) == len(ids)
    blind = "{% for m in messages if m.role == 'user' %}{{ m.content[0].text }}{% endfor %}"
    with pytest.raises(ValueError, match=r"rows\.jsonl:3 \(p7\): .* shows no system turn; drop"):
        dataclasses.replace(processor, chat_template=blind).encode(row, [])


@pytest.mark.parametrize(
    ("tail", "text", "written"),
    [
        (PREFILLED, "<think>\nso</think>B", "so</think>B"),
        (PREFILLED, "<think>so</think>B", "so</think>B"),
        (PREFILLED, "\n <think>\n\nso</think>B", "\nso</think>B"),
        (PREFILLED, "<Thinking>so</thinking>B", "so</thinking>B"),
        (PREFILLED, "so</think>B", "so</think>B"),
        (PREFILLED, "so <think>\n</think>B", "so <think>\n</think>B"),
        (PREFILLED, "</think>B", "</think>B"),
        ("{{- '<think>' -}}", "<think>\nso</think>B", "\nso</think>B"),
        ("", "<think>\nso</think>B", "<think>\nso</think>B"),
    ],
)
def test_a_trajectory_does_not_open_an_open_block_again(tmp_path, tail, text, written):
    processor = make_processor(tmp_path, tail)
    t = trajectory.from_text(text, processor, 99)
    assert t.tokens.tolist() == [*processor.tokenize(written), processor.end_id]
    assert processor.decode(t.tokens.tolist()) == written


def test_a_trajectory_that_never_leaves_the_open_block_is_refused_at_the_start(tmp_path):
    processor = make_processor(tmp_path, PREFILLED)
    for text in ("<answer>B</answer>", "<think>so <answer>B</answer>"):
        row = make_row("How many?", extra={"offline_output": ["so</think>B", text]})
        with pytest.raises(ValueError, match=r"rows\.jsonl:3: offline_output: has no </think>"):
            trajectory.check([row], processor, 99, "truncate")
        assert trajectory.check([row], Processor.from_hf(str(DEMO_MODEL)), 99, "refuse") == 1


def test_special_tokens_that_are_tags_or_answers_are_kept(tmp_path):
    """Here they are all special, as in tokenizers whose maker had them so."""
    tags = ["<think>", "</think>", "<answer>", "</answer>", "<|box_start|>", "<tool_call>"]
    for source in TINY.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    file = tmp_path / "tokenizer.json"
    data = json.loads(file.read_text())
    new = [t for t in tags if t not in {a["content"] for a in data["added_tokens"]}]
    size = 1 + max(a["id"] for a in data["added_tokens"])
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    data["added_tokens"] += [
        {"id": size + i, "content": t, "special": True, **plain} for i, t in enumerate(new)
    ]
    for token in data["added_tokens"]:
        token["special"] = True
    file.write_text(json.dumps(data))
    processor = Processor.from_hf(str(tmp_path))
    text = "<think>so</think><answer><|box_start|>3 <tool_call></answer>"
    ids = processor.tokenize(text)
    assert set(map(processor.tokenizer.token_to_id, tags)) <= set(ids)
    media = [processor.tokenizer.token_to_id(t) for t in processor.vision]
    ends = [*processor.end_ids, processor.pad_id]
    assert processor.decode([*media, *ids, *ends]) == text


def test_padding_that_is_an_ordinary_token_is_kept(tmp_path):
    for source in TINY.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token": "!"}))
    processor = Processor.from_hf(str(tmp_path))
    assert processor.tokenizer.id_to_token(processor.pad_id) == "!"
    assert processor.decode(processor.tokenize("3! is 6")) == "3! is 6"


def test_docstring_examples():
    import doctest

    assert doctest.testmod(think_block) == (0, 3)
    assert doctest.testmod(chat_template) == (0, 0)
