"""What is understood of a request, and that what is not is refused by its name."""

import pytest

from evr1.serve import prompts, schema
from evr1.serve.errors import Refusal

HELLO = [{"role": "user", "content": "Hi"}]
VIDEO = {"type": "video_url", "video_url": {"url": "file:a.mp4"}}


def read(**fields):
    return schema.read({"model": "m", "messages": HELLO} | fields)


def refusal(**fields):
    with pytest.raises(Refusal) as caught:
        prompts.shown(read(**fields))
    body = caught.value.body()["error"]
    assert caught.value.status == 400
    assert "\n" not in body["message"]
    return body["param"], body["code"]


@pytest.mark.parametrize("name", sorted(set(schema.UNSUPPORTED) - set(schema.UNREAD)))
def test_what_is_not_there_is_refused_by_name(name):
    assert refusal(**{name: "something"}) == (name, "unsupported_parameter")
    for nothing in (None, *schema.UNSUPPORTED[name]):
        read(**{name: nothing})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": 1e-40}, "temperature"),
        ({"top_k": True}, "top_k"),
        ({"logprobs": 1}, "logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"n": 10**4000}, "n"),
        ({"nframes": 10**400}, "nframes"),
        ({"chat_template_kwargs": {"a": [[[[[[[[]]]]]]]]}}, "chat_template_kwargs"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"seed": "x"}, "seed"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"fps": 1, "nframes": 4}, "nframes"),
        ({"fps": 1, "media_io_kwargs": {"video": {"num_frames": 4}}}, None),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": [VIDEO]}, *HELLO]}, None),
    ],
)
def test_values_that_cannot_be(fields, param):
    named, _ = refusal(**fields)
    assert param is None or named == param


def test_an_unknown_field_is_named():
    assert refusal(temprature=1) == ("temprature", "unknown_parameter")
    assert schema.read({"model": "m", "messages": HELLO, "user": "x"}).model == "m"
    with pytest.raises(Refusal, match="no JSON object"):
        schema.read([1])


def test_a_refusal_shows_nothing_of_the_text():
    with pytest.raises(Refusal) as caught:
        read(messages=[{"role": "user", "content": {"secret": "word"}}])
    assert "word" not in str(caught.value)


def test_what_a_part_says_goes_before_the_request():
    asked = read(
        fps=2, max_frames=8, max_pixels=5000,
        messages=[{"role": "user", "content": [
            VIDEO,
            {"type": "video_url", "video_url": {"url": "u", "nframes": 4, "video_start": 1.5}},
            {"type": "image_url", "image_url": {"url": "v"}, "max_pixels": 900},
            {"type": "text", "text": "?"},
        ]}],
    )  # fmt: skip
    first, second, third = prompts.shown(asked)
    assert first.said == {"fps": 2, "max_frames": 8, "max_pixels": 5000}
    assert second.said == {
        "nframes": 4, "max_frames": 8, "max_pixels": 5000, "video_start": 1.5
    }  # fmt: skip
    assert third.said == {"max_pixels": 900}
    assert [each.param for each in (first, third)] == [
        "messages.0.content.0",
        "messages.0.content.2",
    ]


def test_frames_as_clients_of_vllm_ask():
    asked = read(
        messages=[{"role": "user", "content": [VIDEO]}],
        media_io_kwargs={"video": {"num_frames": 6}},
    )
    assert prompts.shown(asked)[0].said == {"nframes": 6}


def test_markers_in_a_text_are_text():
    asked = read(messages=[{"role": "user", "content": "what is <video>?"}])
    row = prompts.row_of(asked, [])
    assert (row.problem, row.videos) == ("what is < video>?", ())
