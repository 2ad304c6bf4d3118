"""The judge over HTTP, against a stub server on this machine; and the command with a judge."""

import contextlib
import datetime
import email.utils
import http.server
import json
import socket
import threading
import time

import pytest

from evr1 import rewards
from evr1.rewards import Status, __main__
from evr1.rewards.judging.endpoint import MAX_BODY_BYTES, _retry_after
from evr1.rewards.judging.judge_http import HttpJudge
from evr1.rewards.judging.judge_prompt import Question, Ruling

KEY = "sk-secret-123"
RIGHT = '{"correct": true, "reason": "same"}'


def chat(content, **choice) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}, **choice}]}).encode()


class Server:
    """Answers with the steps given, the last one again and again; remembers what came."""

    def __init__(self, *steps):
        self.steps, self.requests, self.busy, self.most = list(steps), [], 0, 0
        self._lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.requests.append((self.path, dict(self.headers), body))
                    step = outer.steps.pop(0) if len(outer.steps) > 1 else outer.steps[0]
                    outer.busy += 1
                    outer.most = max(outer.most, outer.busy)
                with contextlib.suppress(OSError):
                    step(self)
                with outer._lock:
                    outer.busy -= 1

            def log_message(self, *args):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc):
        self._server.shutdown()
        self._server.server_close()

    def judge(self, **options) -> HttpJudge:
        return HttpJudge(self.url, "judge-1", **{"backoff_s": 0.01, "timeout_s": 5.0, **options})


def reply(body: bytes, status=200, **headers):
    def step(handler):
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return step


def after(seconds, step):
    def slow(handler):
        time.sleep(seconds)
        step(handler)

    return slow


def drip(handler):
    """A byte now and then: no single read is ever slow."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" ")
        time.sleep(0.05)


def drip_headers(handler):
    for _ in range(200):
        handler.wfile.write(b"H")
        handler.wfile.flush()
        time.sleep(0.05)


def torn(handler):
    """The connection goes down in the middle of the body."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')


def torn_chunk(handler):
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"400\r\n" + chat(RIGHT))


def hang_up(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)


def no_http(handler):
    handler.wfile.write(b"220 mail ready\r\n")


GOOD = reply(chat(RIGHT))
ASKED = Question("What passes?", "a car", "an auto")


def ask(server: Server, **options) -> Ruling:
    (ruling,) = server.judge(**options)([ASKED])
    return ruling


def test_success_and_what_is_sent(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", f"{KEY}\n")
    with Server(GOOD) as server:
        judge = server.judge(api_key_env="JUDGE_KEY", json_schema=True, max_tokens=99)
        assert judge([ASKED]) == [Ruling(Status.OK, 1.0, "same")]
        assert judge([]) == []
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge-1", 0, 99)
    ((role, content),) = [(m["role"], m["content"]) for m in body["messages"]]
    assert role == "user"
    assert "begin answer\nan auto\n" in content
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["reason", "correct"]
    assert judge.identity == f"{server.url} judge-1"


def test_without_a_key_or_a_schema_neither_is_sent():
    with Server(GOOD) as server:
        ask(server)
    _, headers, body = server.requests[0]
    assert "Authorization" not in headers
    assert "response_format" not in body


# (steps, status, part of the reason, requests)
OUTCOMES = [
    ([after(8, GOOD)], Status.TIMEOUT, "no whole reply in 0.5 s", 1),
    ([drip], Status.TIMEOUT, "no whole reply in 0.5 s", 1),
    ([drip_headers], Status.TIMEOUT, "no whole reply in 0.5 s", 1),
    ([reply(b"busy", 429), GOOD], Status.OK, "same", 2),
    ([reply(b"", 500), reply(b"", 503), GOOD], Status.OK, "same", 3),
    ([reply(b"broken", 500)], Status.ERROR, "status 500: broken (3 attempts)", 3),
    ([reply(b"busy", 429)], Status.ERROR, "status 429: busy (3 attempts)", 3),
    ([reply(b"no such model", 404)], Status.ERROR, "status 404: no such model", 1),
    ([reply(b"bad request", 400)], Status.ERROR, "status 400: bad request", 1),
    ([reply(b"", 301, Location="http://127.0.0.1:1/")], Status.ERROR, "status 301", 1),
    ([torn], Status.ERROR, "IncompleteRead", 3),
    ([torn, GOOD], Status.OK, "same", 2),
    ([torn_chunk, GOOD], Status.OK, "same", 2),
    ([hang_up, GOOD], Status.OK, "same", 2),
    ([hang_up], Status.ERROR, "RemoteDisconnected", 3),
    ([no_http], Status.ERROR, "BadStatusLine", 3),
    ([reply(b"{")], Status.ERROR, "no chat completion (JSONDecodeError", 1),
    ([reply(b"")], Status.ERROR, "no chat completion", 1),
    ([reply(b"\xff\xfe")], Status.ERROR, "no chat completion", 1),
    ([reply(b"[" * 100_000)], Status.ERROR, "no chat completion (RecursionError", 1),
    ([reply(b'{"choices": []}')], Status.ERROR, 'out of range): {"choices": []}', 1),
    ([reply(b'{"choices": {}}')], Status.ERROR, "no chat completion (KeyError", 1),
    ([reply(b'{"error": "overloaded"}')], Status.ERROR, "overloaded", 1),
    ([reply(b"[1]")], Status.ERROR, "no chat completion (TypeError", 1),
    ([reply(chat(None, finish_reason="length"))], Status.ERROR, '"finish_reason": "length"', 1),
    ([reply(chat([{"text": RIGHT}]))], Status.ERROR, "content is no text", 1),
    ([reply(chat("Correct!"))], Status.UNPARSED, "no verdict", 1),
    ([reply(chat('{"correct": "yes"}'))], Status.UNPARSED, "neither true nor false", 1),
    ([endless], Status.ERROR, f"over {MAX_BODY_BYTES} bytes", 1),
    ([reply(b"x" * (MAX_BODY_BYTES + 1))], Status.ERROR, f"over {MAX_BODY_BYTES} bytes", 1),
]


@pytest.mark.parametrize(("steps", "status", "reason", "requests"), OUTCOMES)
def test_outcomes(steps, status, reason, requests):
    is_slow = status is Status.TIMEOUT
    start = time.monotonic()
    with Server(*steps) as server:
        ruling = ask(server, retries=2, timeout_s=0.5 if is_slow else 5.0)
        took = time.monotonic() - start
    assert ruling.status is status
    assert reason in ruling.reason
    assert len(server.requests) == requests
    assert took < 5
    assert len(ruling.reason) < 600


def test_retry_after_is_honoured():
    with Server(reply(b"", 429, Retry_After="1"), GOOD) as server:
        start = time.monotonic()
        assert ask(server).status is Status.OK
        assert time.monotonic() - start >= 1


def test_a_retry_beyond_the_deadline_is_not_waited_for():
    with Server(reply(b"later", 429, Retry_After="3600")) as server:
        start = time.monotonic()
        ruling = ask(server, deadline_s=5.0)
        assert time.monotonic() - start < 2
    assert ruling.status is Status.TIMEOUT
    assert ruling.reason == "over 5 s in all (status 429: later)"


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [("2", 2, 2), (" 7 ", 7, 7), ("", 0, 0), ("-5", 0, 0), ("soon", 0, 0), ("nan", 0, 0)]
    + [("9" * 400, 10**8, 10**9), ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0)],
)
def test_retry_after_header(header, low, high):
    assert low <= _retry_after(header) <= high


def test_retry_after_date():
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90)
    assert 60 < _retry_after(email.utils.format_datetime(soon, usegmt=True)) <= 90


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    (ruling,) = HttpJudge(url, "m", retries=1, backoff_s=0.01)([ASKED])
    assert ruling.status is Status.ERROR
    assert "ConnectionRefusedError" in ruling.reason
    assert "2 attempts" in ruling.reason


def test_no_more_requests_at_a_time_than_allowed():
    with Server(after(0.05, GOOD)) as server:
        start = time.monotonic()
        questions = [ASKED._replace(answer=str(i)) for i in range(24)]
        rulings = server.judge(concurrency=4)(questions)
        took = time.monotonic() - start
    assert [r.accuracy for r in rulings] == [1] * 24
    assert server.most >= 2
    # the server itself may count a request that is answered already, so the clock tells
    assert took >= 24 / 4 * 0.05
    sent = {r[2]["messages"][0]["content"] for r in server.requests}
    assert len(sent) == 24


def test_rulings_come_in_the_order_of_the_questions():
    def step(handler):
        with server._lock:
            content = next(
                r[2]["messages"][0]["content"]
                for r in server.requests
                if r[1]["Content-Length"] == handler.headers["Content-Length"]
            )
        is_even = content.split("begin answer\n")[1].split("\n")[0].count("x") % 2 == 0
        time.sleep(0.03 if is_even else 0.0)
        reply(chat(json.dumps({"correct": is_even})))(handler)

    with Server(step) as server:
        questions = [ASKED._replace(answer="x" * i) for i in range(20)]
        rulings = server.judge(concurrency=8)(questions)
    assert [r.accuracy for r in rulings] == [1, 0] * 10


def test_the_deadline_holds_for_all_questions_together():
    with Server(after(0.3, GOOD)) as server:
        start = time.monotonic()
        rulings = server.judge(concurrency=2, deadline_s=1.0)([ASKED] * 40)
        assert time.monotonic() - start < 4
    statuses = [r.status for r in rulings]
    assert statuses.count(Status.OK) >= 2
    assert statuses[-1] is Status.TIMEOUT
    assert set(statuses) == {Status.OK, Status.TIMEOUT}
    assert rulings[-1].reason == "over 1 s in all (not asked)"


def test_the_key_shows_nowhere(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with Server(reply(f"Incorrect API key provided: {KEY}".encode(), 401)) as server:
        judge = server.judge(api_key_env="JUDGE_KEY")
        (refused,) = judge([ASKED])
    assert refused.reason == "status 401: Incorrect API key provided: ***"
    with Server(reply(chat(f'{{"correct": true, "reason": "{KEY}"}}'))) as server:
        (ruling,) = server.judge(api_key_env="JUDGE_KEY")([ASKED])
    assert ruling.reason == "***"
    assert KEY not in repr(judge) + judge.identity


@pytest.mark.parametrize(
    ("value", "says"),
    [("", "holds no API key; set it"), (" \n", "holds no API key"), ("a\nb", "control characters")]
    + [("ключ", "control characters"), ("a b", "holds spaces")],
)
def test_bad_keys_are_refused_without_being_shown(monkeypatch, value, says):
    monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(ValueError, match=says) as caught:
        HttpJudge("http://localhost/v1", "m", api_key_env="JUDGE_KEY")
    assert value.strip() == "" or value not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "is no http"),
        ("localhost:8000", "is no http"),
        ("ftp://host/v1", "is no http"),
        ("http:///v1", "is no http"),
        ("http://host:port/v1", "cannot be read"),
        ("http://user:word@host/v1", "a user, a query or a fragment"),
        ("http://host/v1?key=x", "a user, a query or a fragment"),
        ("http://host/v 1", "spaces or control"),
        ("http://hôst/v1", "is no http"),
    ],
)
def test_bad_urls_are_refused(url, says):
    with pytest.raises(ValueError, match=says) as caught:
        HttpJudge(url, "m")
    assert "word" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"timeout_s": 0}, {"retries": -1}, {"concurrency": 0}, {"max_tokens": 0}]
)
def test_bad_numbers_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}="):
        HttpJudge("http://localhost/v1", "m", **options)
    with pytest.raises(ValueError, match="model is not given"):
        HttpJudge("http://localhost/v1", "")


# --- the command

ROWS = [
    {"problem_type": "captioning", "response": "<answer>an auto</answer>", "answer": "a car"},
    {"problem_type": "video qa", "response": "<answer>a car</answer>", "answer": "a car"},
    {"problem_type": "open-ended", "response": "", "answer": "a car"},
    {"problem_type": "numerical", "response": "<answer>4</answer>", "answer": 5},
]


def command(tmp_path, *flags):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    __main__.main([f"--rows={source}", f"--out={out}", "--workers=1", *flags])
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_command_with_a_judge(tmp_path):
    cache = tmp_path / "rulings.jsonl"
    with Server(GOOD) as server:
        flags = [f"--judge_url={server.url}", "--judge_model=m", f"--judge_cache={cache}"]
        first = command(tmp_path, *flags)
        assert command(tmp_path, *flags) == first
        assert command(tmp_path, *flags, "--judge_types=numerical")[3]["accuracy"] == 1
    assert len(server.requests) == 2  # the open answer once, the number once
    assert [row["accuracy"] for row in first] == [1, 1, 0, 0]
    assert [row["status"] for row in first] == ["ok", "ok", "unparsed", "ok"]
    assert first[0]["detail"] == "same"


def test_command_with_a_judge_that_fails(tmp_path):
    with Server(reply(b"no", 403)) as server:
        rows = command(tmp_path, f"--judge_url={server.url}", "--judge_model=m")
    assert [row["status"] for row in rows] == ["error", "ok", "unparsed", "ok"]
    assert rows[0]["detail"] == "judge: status 403: no"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--judge_model=m"], "--judge_url is not given"),
        (["--judge_url=http://localhost/v1"], "the judge's model is not given"),
        (["--judge_url=http://localhost", "--judge_model=m", "--judge_types=riddle"], "riddle"),
    ],
)
def test_command_refuses_half_a_judge(tmp_path, flags, says):
    with pytest.raises(SystemExit, match=says):
        command(tmp_path, *flags)


def test_without_a_judge_nothing_is_connected(tmp_path, monkeypatch):
    def refuse(*args):
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert command(tmp_path)[0]["accuracy"] < 1
    assert rewards.score("<answer>a car</answer>", ROWS[0]).accuracy == 1
