"""Where media may come from: nothing is read that should not be. Harmless inputs."""

import base64
import contextlib
import http.server
import pathlib
import shutil
import socket
import threading

import pytest
from clips import write_image

from evr1.serve.errors import Refusal
from evr1.serve.fetch import Fetcher, is_public
from evr1.serve.media import MediaFolder

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40


@pytest.fixture
def site():
    """A server on this machine, and the paths that were asked of it."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{self.server.server_port}/secret")
                self.end_headers()
                return
            if self.path == "/round":
                self.send_response(302)
                self.send_header("Location", "/round")
                self.end_headers()
                return
            self.send_response(200 if self.path != "/gone" else 404)
            self.end_headers()
            self.wfile.write(PNG * (100 if self.path == "/large" else 1))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def refused(fetch, url):
    with pytest.raises(Refusal) as caught:
        fetch(url, "here")
    return str(caught.value)


def test_addresses_are_fetched_where_that_is_allowed(site):
    url, asked = site
    assert "--allow_http" in refused(Fetcher(False, (), 1000), url)
    assert "not public" in refused(Fetcher(True, (), 1000), url)
    assert asked == []
    fetch = Fetcher(False, ("127.0.0.1",), 1000)
    assert fetch(f"{url}/a", "here") == PNG
    assert "404" in refused(fetch, f"{url}/gone")
    assert "over 1000 bytes" in refused(fetch, f"{url}/large")
    assert "redirects" in refused(fetch, f"{url}/round")


def test_a_redirect_is_looked_at_as_an_address_is(site):
    url, asked = site
    fetch = Fetcher(True, ("127.0.0.1",), 1000)
    assert "not public" in refused(fetch, f"{url}/moved")
    assert asked == ["/moved"]


@pytest.mark.parametrize(
    "part", [b"HTTP/1.1 100 Continue\r\n\r\n", b"x", b"HTTP/1.1 200 OK\r\n\r\n" + PNG]
)
def test_a_server_that_never_comes_to_an_end_is_left(part):
    """With answers before the answer, a header or a body: each a little at a time, for 20 s."""
    is_left = threading.Event()

    def serve(listening):
        made, _ = listening.accept()
        with made, contextlib.suppress(OSError):
            for _ in range(2000):
                made.sendall(part)
                is_left.wait(0.01)
            return
        is_left.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        fetch = Fetcher(False, ("127.0.0.1",), 10**7, timeout_s=0.3)
        assert "could not be fetched" in refused(fetch, url)
        thread.join()
    assert is_left.is_set()


def test_a_path_may_be_spelled_as_it_is_read(site):
    url, asked = site
    fetch = Fetcher(False, ("127.0.0.1",), 1000)
    assert fetch(f"{url}/gr\u00fcn %2F.png?a=b%20c&d=\u00e9", "here") == PNG
    assert asked == ["/gr%C3%BCn%20%2F.png?a=b%20c&d=%C3%A9"]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("64:ff9b::7f00:1", False), ("64:ff9b::808:808", True), ("::7f00:1", False),
        ("fec0::1", False), ("64:ff9b:1::1", False), ("5f00::1", False),
        ("fc00::1", False), ("fe80::1%eth0", False), ("2002:7f00:1::", False),
        ("2001:0:1::80ff:fffe", False), ("100.64.0.1", False), ("224.0.0.1", False),
        ("ff0e::1", False), ("2606:4700::1", True), ("8.8.8.8", True),
    ],
)  # fmt: skip
def test_addresses_within_addresses(address, public):
    assert is_public(address) == public


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://169.254.169.254/latest", "http://0/",
        "http://10.0.0.1/", "http://2130706433/", "http://user@127.0.0.1/", "ftp://8.8.8.8/",
    ],
)  # fmt: skip
def test_addresses_of_this_network_in_any_spelling(url):
    said = refused(Fetcher(True, (), 1000, timeout_s=2.0), url)
    assert any(word in said for word in ("not public", "no http or https", "could not be fetched"))


@pytest.fixture
def folder(tmp_path):
    """A folder of media with a.png, beside it secret.png, and links from one to the other."""
    inside = tmp_path / "inside"
    inside.mkdir()
    write_image(inside / "a.png")
    write_image(tmp_path / "secret.png")
    (tmp_path / "inside2").mkdir()
    write_image(tmp_path / "inside2" / "b.png")
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    (inside / "up").symlink_to(tmp_path)
    made = MediaFolder(str(inside), Fetcher(False, (), 1000), 1000)
    yield made, inside
    made.close()


def opened(folder, url, kind="image"):
    with folder.opened(kind, url, "here") as medium:
        return medium


def test_files_of_the_folder_are_read(folder):
    made, inside = folder
    for url in (
        "file:a.png",
        "file://a.png",
        f"file://{inside}/a.png",
        f"file://localhost{inside}/a.png",
    ):
        assert opened(made, url).path == str(inside.resolve() / "a.png")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname", "file:../secret.png", "file:%2e%2e/secret.png", "file:link.png",
        "file:up/secret.png", "file:../inside2/b.png", "file:no.png", "file:.", "file:",
        "file:a\0.png", "file:///dev/zero",
    ],
)  # fmt: skip
def test_no_other_file_is_read_and_none_is_told_of(folder, url):
    with pytest.raises(Refusal) as caught:
        opened(folder[0], url)
    assert str(caught.value) == "here: no such file under --media_dir"


def test_without_a_folder_there_are_no_files():
    made = MediaFolder("", Fetcher(False, (), 10), 1000)
    with pytest.raises(Refusal, match="files are not read"):
        opened(made, "file:a.png")
    with pytest.raises(Refusal, match="give a data:"):
        opened(made, "/etc/hostname")
    made.close()


def url_of(data, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(
    ("kind", "url", "says"),
    [
        ("video", url_of(b"ffconcat version 1.0\nfile /etc/hostname\n", "video/mp4"), "no kind"),
        ("video", url_of(b"#EXTM3U\nfile:///etc/hostname\n", "video/mp4"), "no kind"),
        ("video", url_of(PNG, "video/mp4"), "begins as png"),
        ("image", url_of(b"\0\0\0\x20ftypisom" + b"\0" * 40), "begins as mp4"),
        ("image", url_of(PNG, "video/mp4"), "image/"),
        ("image", "data:image/png;base64,!!", "no base64"),
        ("image", "data:image/png," + "a" * 10, "data:TYPE;base64"),
        ("image", url_of(PNG * 100), "over 1000 bytes"),
    ],
)
def test_bytes_are_what_they_say(folder, kind, url, says):
    with pytest.raises(Refusal, match=says):
        opened(folder[0], url, kind)
    assert folder[0].files == 0


def test_a_folder_that_was_removed_is_made_again(folder):
    made, url = folder[0], url_of(PNG)
    place = pathlib.Path(opened(made, url).path).parent
    shutil.rmtree(place)
    with made.opened("image", url, "a") as medium:
        assert pathlib.Path(medium.path).read_bytes() == PNG
        shutil.rmtree(place)
        with made.opened("image", url, "b") as again:
            assert pathlib.Path(again.path).read_bytes() == PNG
    place.rmdir()
    place.touch()  # nothing can be kept there
    with pytest.raises(Refusal, match="media cannot be kept") as caught:
        opened(made, url)
    assert caught.value.status == 503
    assert made.files == 0


def test_media_of_all_requests_have_a_bound(folder):
    made = folder[0]
    with contextlib.ExitStack() as held:
        for number in range(4):
            held.enter_context(made.opened("image", url_of(PNG + b"%d" % number * 900), "a"))
        with pytest.raises(Refusal, match="hold too many bytes") as caught:
            opened(made, url_of(PNG + b"4" * 900))
        assert caught.value.status == 429
    opened(made, url_of(PNG + b"4" * 900))


def test_bytes_lie_in_a_file_while_somebody_asks(folder):
    made, url = folder[0], url_of(PNG)
    with made.opened("image", url, "a") as first, made.opened("image", url, "b") as second:
        assert first == second
        assert pathlib.Path(first.path).read_bytes() == PNG
        assert made.files == 1
    assert made.files == 0
    assert not pathlib.Path(first.path).exists()
