"""A server that is full, asked too much, left, or ended. Harmless inputs, a process of its own."""

import base64
import concurrent.futures
import io
import json
import socket
import struct
import time
import zlib

import openai
import pytest
import serve_rig as rig
from clips import write_clip
from PIL import Image

KEY = "sk-first"
AUTH = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def server():
    """Room for one answer at a time and two that wait; small limits."""
    flags = ["--slots", "1", "--rows", "1", "--queue", "2", "--max_tokens", "2048"]
    flags += [
        "--max_body_mib",
        "0.25",
        "--max_source_pixels",
        "1000000",
        "--max_prompt_tokens",
        "256",
    ]
    with rig.serving(*flags) as running:
        assert rig.chat(running.port).status == 200
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_left(request):
    yield
    if "server" in request.fixturenames:
        port = request.getfixturevalue("server").port
        for name in ("rows_running", "rows_waiting", "slots_used", "requests_open"):
            rig.until(port, f"evr1_{name}", 0)


def png(width, height):
    """A header of a PNG that says so, and pixels that are hardly there: a bomb that is none."""

    def part(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"\0" * 64)) + part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def shown(data, kind="image/png"):
    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    part = rig.video(url) if kind.startswith("video") else rig.image(url)
    return [part, rig.text("?")]


def test_bombs_are_refused_by_their_header(server):
    begun = time.monotonic()
    for sides in ((5000, 5000), (60000, 60000)):
        reply = rig.chat(server.port, shown(png(*sides)))
        assert reply.error[0] == 400
        assert reply.error[1] in ("limit_exceeded", "media_undecodable")
    assert time.monotonic() - begun < 30


def test_broken_media_are_the_client_s_fault(server, tmp_path):
    clip = write_clip(tmp_path / "a.mp4", 30).read_bytes()
    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "PNG")
    for data, kind in ((clip[:200], "video/mp4"), (out.getvalue()[:60], "image/png")):
        reply = rig.chat(server.port, shown(data, kind))
        assert reply.error == (400, "media_undecodable")
        assert "evr1-serve-" not in reply.json["error"]["message"]  # where it lay
    assert rig.chat(server.port, shown(clip, "video/mp4")).status == 200


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"max_tokens": 4096}, "limit_exceeded"),
        ({"n": 17}, "limit_exceeded"),
        ({"max_frames": 5000, "content": "video"}, "limit_exceeded"),
        ({"max_pixels": 10**8, "content": "video"}, "limit_exceeded"),
        (
            {"nframes": 30, "min_pixels": 65536, "max_pixels": 65536, "content": "video"},
            "context_length_exceeded",
        ),
        ({"min_pixels": 5000, "max_pixels": 4000, "content": "video"}, "invalid_value"),
        ({"content": "many words " * 300}, "context_length_exceeded"),
        ({"content": "w" * 5000}, "context_length_exceeded"),  # by its characters
        ({"messages": [{"role": "user", "content": ""}] * 65}, "context_length_exceeded"),
        ({"model": "gpt-4"}, "model_not_found"),
        ({"chat_template_kwargs": {"no_such": 1}}, "invalid_value"),
        ({"content": "  "}, "invalid_value"),
    ],
)
def test_what_is_too_much_is_refused_by_name(server, tmp_path, fields, code):
    if fields.get("content") == "video":
        clip = write_clip(tmp_path / "a.mp4", 30)
        part = {"type": "video_url", "video_url": {"url": rig.data_url(clip, "video/mp4")}}
        fields = {**fields, "content": [part]}
    reply = rig.chat(server.port, **fields)
    assert reply.error[1] == code
    assert "assets" not in reply.json["error"]["message"]  # where the model lies


def test_bodies(server):
    post = ("POST", "/v1/chat/completions")
    assert rig.call(server.port, *post, b"x" * 2**19).error == (413, "body_too_large")
    for body in (b"{", b"[" * 4000, b"\xff", b"1" * 5000, b""):
        assert rig.call(server.port, *post, body).error[1] == "invalid_json"
    assert rig.call(server.port, "GET", "/v1/chat/completions").error == (405, "method_not_allowed")
    assert rig.call(server.port, "GET", "/v1/other").error == (404, "not_found")
    assert rig.call(server.port, "GET", "/v1/models/other").error == (404, "model_not_found")


def test_a_full_queue_says_when_to_come_again(server):
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(rig.chat, server.port, **rig.LONG) for _ in range(8)]
        replies = [each.result() for each in asked]
    refused = [reply for reply in replies if reply.status != 200]
    assert 0 < len(refused) <= 5
    for reply in refused:
        assert reply.error == (429, "server_overloaded")
        assert int(reply.headers["retry-after"]) > 0
    for reply in replies:
        assert reply.status == 429 or len(reply.json["choices"]) == rig.LONG["n"]


def test_a_client_that_leaves_frees_its_slot(server):
    """In the middle of a stream, of an answer that is no stream, and of its body."""
    before = rig.metrics(server.port)["evr1_tokens_total"]
    with openai.OpenAI(base_url=server.url, api_key="any", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="demo_model", messages=[{"role": "user", "content": "?"}], stream=True, **rig.LONG
        )
        for _ in range(3):
            next(iter(stream))
        stream.close()
    rig.until(server.port, "evr1_rows_running", 0)
    body = json.dumps(
        {"model": "demo_model", "messages": [{"role": "user", "content": "?"}], **rig.LONG}
    ).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    for sent in (head + body, head + body[:20]):
        with socket.create_connection(("127.0.0.1", server.port)) as made:
            made.sendall(sent)
            time.sleep(0.3)
        rig.until(server.port, "evr1_rows_running", 0)
        rig.until(server.port, "evr1_rows_waiting", 0)
    drawn = rig.metrics(server.port)["evr1_tokens_total"] - before
    assert drawn < rig.LONG["n"] * rig.LONG["max_tokens"]  # half of what both ask for


def test_a_request_s_time_ends(server):
    assert rig.chat(server.port, **rig.LONG, timeout_s=0.2).error == (504, "timeout")
    assert rig.chat(server.port, timeout_s=-1).error == (400, "invalid_value")


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"])
def test_half_open_connections_are_closed(sent):
    """By the protocol's own timer, here a short one."""
    import asyncio

    from evr1.serve.server import Protocol, Server, bind

    class Hasty(Protocol):
        header_s = 0.2

    async def ok(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def run():
        address = asyncio.get_running_loop().create_future()
        server = Server(ok, 1.0, lambda: True, address.set_result)
        server.config.http = Hasty
        serving = asyncio.create_task(server.serve(bind("127.0.0.1", 0)))
        port = int((await address).rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * (not sent) + sent)
        if not sent:
            assert b"200" in await reader.readuntil(b"ok\r\n0\r\n\r\n")
            writer.write(b"GET / HT")  # and no more
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        server.should_exit = True
        await serving

    asyncio.run(run())


def test_keys(tmp_path):
    file = tmp_path / "keys"
    file.write_text("sk-second\n\n")
    flags = ["--api_key_env", "EVR1_KEY", "--api_key_file", str(file), "--slots", "1"]
    flags += ["--drain_s", "300"]  # a busy machine
    with rig.serving(*flags, EVR1_KEY=KEY) as server:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
            assert rig.chat(server.port, headers=given).error == (401, "invalid_api_key")
            for path in ("/v1/models", "/metrics"):
                assert rig.call(server.port, "GET", path, **given).error[0] == 401
        assert rig.call(server.port, "GET", "/health").json["status"] == "ok"
        for key in (KEY, "sk-second"):
            given = {"Authorization": f"Bearer {key}"}
            assert rig.call(server.port, "GET", "/v1/models", **given).status == 200
        # SIGTERM: what is under way ends well, nobody else is let in, and the status is 0.
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            asked = threads.submit(rig.chat, server.port, headers=AUTH, max_tokens=64, n=4)
            end = time.monotonic() + 60
            while not rig.metrics(server.port, **AUTH)["evr1_requests_open"]:
                assert time.monotonic() < end
            server.process.terminate()
            assert asked.result().status == 200
        assert server.process.wait(60) == 0
        with pytest.raises(OSError, match="refused"):
            rig.call(server.port, "GET", "/health")
    assert "".join(server.lines) == ""  # nothing that a request held, or anything else
