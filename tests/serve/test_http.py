"""The server below the routes: connections, what is no HTTP, its beginning and its end."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from repo import DEMO_MODEL, ROOT

from evr1.serve.__main__ import main
from evr1.serve.server import Protocol, Server, bind


async def ok(scope, receive, send):
    """Answers a request; one to /large with more than a socket holds."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(200 if scope["path"] == "/large" else 0):
        await send({"type": "http.response.body", "body": b"x" * 2**16, "more_body": True})
    await send({"type": "http.response.body", "body": b"ok"})


@contextlib.asynccontextmanager
async def running(kind):
    """The port of a server of `ok` with a protocol."""
    address = asyncio.get_running_loop().create_future()
    server = Server(ok, 1.0, lambda: True, address.set_result)
    server.config.http = kind
    serving = asyncio.create_task(server.serve(bind("127.0.0.1", 0)))
    try:
        yield int((await address).rpartition(":")[2])
    finally:
        server.should_exit = True
        await serving


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01 no TLS here\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 66000, 431),
    ],
)
def test_what_is_no_http_is_refused_as_all_else_is(sent, status):
    async def run():
        async with running(Protocol) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
            assert int(head.split()[1]) == status
            assert json.loads(body)["error"]["code"] == "invalid_http"
            writer.close()

    asyncio.run(run())


def test_the_connection_that_has_said_nothing_for_longest_goes():
    class Small(Protocol):
        most = 3

    async def run():
        async with running(Small) as port:
            made = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
            for reader, _ in made[:2]:
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.wait_for(reader.read(), 5) == b""
            for reader, writer in made[2:]:
                writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert b"200" in await asyncio.wait_for(reader.readline(), 5)
            for _, writer in made:
                writer.close()

    asyncio.run(run())


def test_a_client_that_takes_nothing_is_let_go():
    class Hasty(Protocol):
        send_s = 0.2

    async def run():
        async with running(Hasty) as port:
            loop = asyncio.get_running_loop()
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setblocking(False)
                await loop.sock_connect(client, ("127.0.0.1", port))
                await loop.sock_sendall(client, b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
                await asyncio.sleep(0.5)
                taken = 0
                with contextlib.suppress(ConnectionResetError):
                    while part := await asyncio.wait_for(loop.sock_recv(client, 2**20), 5):
                        taken += len(part)
                assert taken < 200 * 2**16

    asyncio.run(run())


def test_an_address_in_use_is_told_before_a_model_is_read(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        begun = time.monotonic()
        assert main(["--model", str(DEMO_MODEL), "--port", str(port)]) == 1
        assert time.monotonic() - begun < 30
    said = capsys.readouterr().err
    assert said == f"serve: --host 127.0.0.1 --port {port}: Address already in use\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_who_is_asked_to_end_before_he_listens_says_so(number, status, tmp_path):
    """A pipe as the file of keys: it is waited for, before the model is."""
    pipe = tmp_path / "keys"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-m", "evr1.serve", "--model", "m", "--api_key_file", str(pipe)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    end, written = time.monotonic() + 60, None
    while written is None:
        assert time.monotonic() < end
        with contextlib.suppress(OSError):  # nobody reads it yet
            written = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    os.close(written)
    assert process.returncode == status
    assert said.endswith("; no request is under way\n")
    assert said.count("\n") == 1
