"""A server that speaks S3 over HTTP, and a wire to it that can be cut."""

import contextlib
import re
import socket
import socketserver
import threading
import urllib.request
from collections.abc import Iterator

import pytest

_KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Wire:
    """A relay to the server; counts the bytes that come back, and may cut them off.

    Attributes:
        received: bytes of all answers.
        cuts: answers to `GET` of an object that are still to be cut.
        after: bytes of an answer that pass before it is.
    """

    def __init__(self, host: str, port: int):
        """Listens; `url` is where."""
        self.received, self.cuts, self.after = 0, 0, 0
        wire = self

        class Relay(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection((host, port)) as server:
                    wire.relay(self.request, server)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def relay(self, client: socket.socket, server: socket.socket) -> None:
        """Passes bytes on in both directions until one side ends."""
        asked = threading.Event()  # for the bytes of an object

        def up() -> None:
            with contextlib.suppress(OSError):
                while data := client.recv(2**16):
                    if re.match(rb"GET /[^/?]+/[^?]*array_record", data):
                        asked.set()
                    server.sendall(data)
                server.shutdown(socket.SHUT_WR)

        threading.Thread(target=up, daemon=True).start()
        passed = 0
        with contextlib.suppress(OSError):
            while data := server.recv(2**16):
                if asked.is_set() and self.cuts:
                    passed += len(data)
                    if passed > self.after:
                        self.cuts -= 1
                        client.shutdown(socket.SHUT_RDWR)
                        return
                self.received += len(data)
                client.sendall(data)

    def clear(self) -> None:
        """Leaves an empty bucket, `bucket`, alone on the server."""
        import fsspec

        self.ask("reset")
        fsspec.filesystem("s3", use_listings_cache=False).mkdir("bucket")
        self.received = self.cuts = self.after = 0

    def ask(self, what: str, data: bytes = b"") -> None:
        """Asks something of the server that is not S3's."""
        address = f"{self.url}/moto-api/{what}"
        kind = {"Content-Type": "text/plain"}  # a form would be taken apart
        request = urllib.request.Request(address, data, kind, method="POST")
        urllib.request.urlopen(request).close()

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def s3() -> Iterator[Wire]:
    """Yields the wire to a server, which commands then use; see `Wire.clear`."""
    server_module = pytest.importorskip("moto.server", reason="needs moto[server], see .ci/run")
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("s3fs", reason="needs the extra s3")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    wire = Wire(*server.get_host_and_port())
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**_KEYS, "AWS_ENDPOINT_URL": wire.url}.items():
                patch.setenv(name, value)
            fsspec.get_filesystem_class("s3").clear_instance_cache()
            yield wire
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        wire.close()
        server.stop()
