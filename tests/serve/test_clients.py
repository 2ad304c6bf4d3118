"""Real clients of the API: the openai package, curl, and answers as the command line's."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys

import openai
import pytest
import serve_rig as rig
import tools_rig
from repo import ROOT

from evr1.rewards.base import Status
from evr1.rewards.judging.chat import Prompt
from evr1.rewards.judging.endpoint import Endpoint


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A folder with a.mp4 and b.png."""
    root = tmp_path_factory.mktemp("media")
    tools_rig.write_media(root)
    return root


@pytest.fixture(scope="module")
def server(media):
    with rig.serving("--media_dir", str(media), "--slots", "2", "--max_tokens", "64") as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.url, api_key="any", max_retries=0, timeout=300) as made:
        yield made


ASKED = {"model": "demo_model", "temperature": 0, "max_tokens": 12}
HELLO = [{"role": "user", "content": "How many digits are there?"}]


def test_greedy_answers_are_those_of_generate(server, media, tmp_path):
    """Text, a video, an image, both, and a second question on the video; the raw prompts."""
    rows = [
        {"problem": "How many digits are there?"},
        {"problem": "<video>How many?", "videos": ["a.mp4"]},
        {"problem": "Read <image> it.", "images": ["b.png"]},
        {"problem": "<video>Which digit is the first?", "videos": ["a.mp4"]},
        {"problem": "<image><video>Both?", "videos": ["a.mp4"], "images": ["b.png"]},
    ]
    given = tools_rig.write_rows(tmp_path / "rows.jsonl", rows)
    flags = ["--model", rig.MODEL, "--rows", given, "--media_dir", str(media), *tools_rig.BUDGETS]
    flags += ["--prompt", "raw", "--temperature", "0", "--max_tokens", "12"]
    out = tmp_path / "out.jsonl"
    assert tools_rig.load("generate").main([*flags, "--slots", "2", "--out", str(out)]) == 0
    want = tools_rig.read(out)
    data, file = rig.data_url(media / "b.png", "image/png"), "file:a.mp4"
    asked = [
        "How many digits are there?",
        [rig.video(rig.data_url(media / "a.mp4", "video/mp4")), rig.text("How many?")],
        [rig.text("Read "), rig.image(data), rig.text(" it.")],
        [rig.video(file), rig.text("Which digit is the first?")],
        [rig.image(data), rig.video(file), rig.text("Both?")],
    ]
    for content, row in zip(asked, want, strict=True):
        reply = rig.chat(server.port, content, logprobs=True)
        assert reply.status == 200, reply.body
        choice, usage = reply.json["choices"][0], reply.json["usage"]
        assert choice["message"]["content"] == row["completion"]
        assert choice["finish_reason"] == row["finish_reason"]
        assert usage["completion_tokens"] == len(row["completion_token_ids"])
        assert usage["prompt_tokens"] == len(row["prompt_token_ids"])
        got = [entry["logprob"] for entry in choice["logprobs"]["content"]]
        assert got == pytest.approx(row["logprobs"], abs=2e-4)


def test_the_openai_package(client):
    assert [model.id for model in client.models.list()] == ["demo_model"]
    assert client.models.retrieve("demo_model").owned_by == "evr1"
    first = client.chat.completions.create(messages=HELLO, **ASKED)
    assert first.choices[0].finish_reason == "stop"
    assert first.choices[0].message.content.startswith("<answer>")
    assert first.system_fingerprint.startswith("evr1-")
    several = client.chat.completions.create(
        messages=HELLO, **ASKED | {"temperature": 2.0, "n": 5, "seed": 7, "top_p": 0.9}
    )
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3, 4]
    assert len({choice.message.content for choice in several.choices}) > 1
    again = client.chat.completions.create(
        messages=HELLO, **ASKED | {"temperature": 2.0, "n": 5, "seed": 7, "top_p": 0.9}
    )
    assert [c.message for c in again.choices] == [c.message for c in several.choices]


def test_logprobs_of_the_likeliest(client):
    made = client.chat.completions.create(messages=HELLO, logprobs=True, top_logprobs=3, **ASKED)
    content = made.choices[0].logprobs.content
    assert len(content) == made.usage.completion_tokens
    for entry in content:
        likeliest = [top.logprob for top in entry.top_logprobs]
        assert likeliest == sorted(likeliest, reverse=True)
        assert len(likeliest) == 3
        assert entry.top_logprobs[0].token == entry.token  # it is greedy
        assert entry.logprob == pytest.approx(likeliest[0], abs=1e-5)
        assert entry.bytes == list(entry.token.encode())


def test_a_stream_says_the_same(client):
    whole = client.chat.completions.create(messages=HELLO, logprobs=True, n=2, **ASKED)
    stream = client.chat.completions.create(
        messages=HELLO, logprobs=True, n=2, stream=True,
        stream_options={"include_usage": True}, **ASKED,
    )  # fmt: skip
    texts, reasons, entries, usage = {0: "", 1: ""}, {}, {0: [], 1: []}, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            entries[choice.index] += choice.logprobs.content if choice.logprobs else []
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
    for choice in whole.choices:
        assert texts[choice.index] == choice.message.content
        assert reasons[choice.index] == choice.finish_reason
        assert len(entries[choice.index]) == len(choice.logprobs.content)
    assert usage == whole.usage


def test_a_text_to_stop_at_is_no_part_of_the_answer(client):
    whole = client.chat.completions.create(messages=HELLO, **ASKED).choices[0].message.content
    stop = whole[-3:]
    for stream in (False, True):
        made = client.chat.completions.create(
            messages=HELLO, stop=[stop, "never"], stream=stream, **ASKED
        )
        if stream:
            parts = [chunk.choices[0].delta.content or "" for chunk in made]
            assert "".join(parts) == whole[: whole.index(stop)]
        else:
            assert made.choices[0].message.content == whole[: whole.index(stop)]
            assert made.choices[0].finish_reason == "stop"


def test_many_at_a_time_get_what_each_alone_gets(server):
    """Different ways to draw, in the same slots."""
    ways = [
        {"temperature": 0},
        {"temperature": 1.5, "seed": 1},
        {"temperature": 1.5, "seed": 2, "top_p": 0.8, "max_tokens": 3},
        {"temperature": 3.0, "seed": 1, "n": 2},
    ]

    async def all_of(limit):
        async with openai.AsyncOpenAI(base_url=server.url, api_key="any", timeout=300) as made:
            turn = asyncio.Semaphore(limit)

            async def one(way):
                async with turn:
                    return await made.chat.completions.create(messages=HELLO, **ASKED | way)

            return await asyncio.gather(*[one(way) for way in ways for _ in range(3)])

    together, alone = asyncio.run(all_of(12)), asyncio.run(all_of(1))
    assert [c.choices for c in together] == [c.choices for c in alone]
    assert together[6].choices[0].finish_reason in ("length", "stop")
    assert together[6].usage.completion_tokens <= 3


def test_questions_on_a_video_are_prefilled_once(server, media):
    before = rig.metrics(server.port)
    url = rig.data_url(media / "a.mp4", "video/mp4")
    for question in ("Which?", "Where?", "How?"):
        assert rig.chat(server.port, [rig.video(url, fps=1), rig.text(question)]).status == 200
    after = rig.metrics(server.port)
    assert after["evr1_prefills_total"] - before["evr1_prefills_total"] == 1
    assert after["evr1_prefix_hits_total"] - before["evr1_prefix_hits_total"] == 2


def test_turns_and_system_are_shown(client):
    messages = [
        {"role": "system", "content": "Answer."},
        *HELLO,
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": [{"type": "text", "text": "Sure? <video>"}]},
    ]
    made = client.chat.completions.create(messages=messages, **ASKED)
    first = client.chat.completions.create(messages=HELLO, **ASKED)
    assert made.usage.prompt_tokens > first.usage.prompt_tokens


def test_curl_as_the_page_has_it(server):
    """The page's own line, but for the port and the model's name."""
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    page = (ROOT / "docs" / "serving.md").read_text()
    command = re.search(r"^curl .*?(?=^```)", page, re.M | re.S)[0]
    command = command.replace("localhost:8000", f"127.0.0.1:{server.port}")
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=True, timeout=300)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"]


def test_the_llm_judge(server):
    """The judge's own client of endpoints."""
    endpoint = Endpoint(server.url, "demo_model", max_tokens=12, concurrency=4)
    replies = dict(endpoint.replies([Prompt(f"How many? {i}") for i in range(4)]))
    assert sorted(replies) == [0, 1, 2, 3]
    assert all(reply.status is Status.OK and reply.text for reply in replies.values())


def test_inspect_ai(server):
    """Its OpenAI-compatible provider, in a task of made-up rows."""
    pytest.importorskip("inspect_ai")
    from inspect_ai import Task
    from inspect_ai import eval as evaluate
    from inspect_ai.dataset import Sample
    from inspect_ai.model import get_model
    from inspect_ai.scorer import includes

    model = get_model("openai-api/evr1/demo_model", base_url=server.url, api_key="any")
    samples = [Sample(input=f"How many? {i}", target="<answer>") for i in range(3)]
    task = Task(dataset=samples, scorer=includes())
    [log] = evaluate(task, model=model, display="none", log_samples=False, max_tokens=12)
    assert log.status == "success"
    assert log.results.scores[0].metrics["accuracy"].value == 1


TASK = """
task: madeup
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_messages: !function utils.doc_to_messages
doc_to_target: answer
process_results: !function utils.process_results
generation_kwargs: {max_new_tokens: 12, temperature: 0}
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
UTILS = """
def doc_to_messages(doc, lmms_eval_specific_kwargs=None):
    content = [{"type": "video", "url": doc["video"]}, {"type": "text", "text": doc["question"]}]
    return [{"role": "user", "content": content}]

def doc_to_visual(doc):
    return [doc["video"]]

def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]

def process_results(doc, results):
    return {"acc": float("LMMS_EVAL_REQUEST_FAILED" not in results[0])}
"""


def test_lmms_eval(server, media, tmp_path):
    """Its OpenAI-compatible model, on a task of made-up rows; videos go by their paths."""
    pytest.importorskip("lmms_eval")
    video = str(media / "a.mp4")
    rows = [{"question": f"How many? {i}", "answer": "", "video": video} for i in range(3)]
    given = tools_rig.write_rows(tmp_path / "rows.jsonl", rows)
    (tmp_path / "madeup.yaml").write_text(TASK.replace("ROWS", given))
    (tmp_path / "utils.py").write_text(UTILS)
    model = f"model_version=demo_model,base_url={server.url},api_key=any,pass_video_url=True"
    done = subprocess.run(
        [sys.executable, "-m", "lmms_eval", "--model", "openai", "--tasks", "madeup",
         "--model_args", f"{model},max_frames_num=4", "--include_path", str(tmp_path),
         "--output_path", str(tmp_path / "out")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        check=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0
    [results] = (tmp_path / "out").rglob("*_results.json")
    assert json.loads(results.read_text())["results"]["madeup"]["acc,none"] == 1
