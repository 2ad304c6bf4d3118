"""The page of a run that goes, served to this machine alone."""

import http.client
import threading

import numpy as np
import pytest
from pages import Page, check_policy
from report_rig import make_run, metric, rollout

from evr1.data.shown import Frame, Shown
from evr1.report.__main__ import main
from evr1.report.serve import Live, Server


def frames(split, name):
    return Shown([Frame(np.zeros((8, 8, 3), np.uint8), 0.0)])


@pytest.fixture
def served(tmp_path):
    """A server of a run, and a function that asks it: path, host -> (status, headers, text)."""
    run = make_run(tmp_path / "run", [rollout()])
    with Server(Live(run, frames), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def ask(path, host=None):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
            connection.request("GET", path, headers={"Host": host} if host else {})
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
            return answer.status, answer.headers, text

        yield run, server, ask
        server.shutdown()
        thread.join()


def test_the_page_follows_what_the_run_writes(served, tmp_path):
    run, _, ask = served
    status, headers, text = ask("/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    (tmp_path / "page.html").write_text(text)
    page = Page(tmp_path / "page.html")
    check_policy(page)
    assert page.policy["connect-src"] == "'self'"
    assert page.data["live"] == ask("/state")[2]
    assert list(page.data["frames"]) == ["train/p1"]
    assert not (run / "report.html").exists()  # nothing is written into the run
    make_run(run, [rollout(), rollout(2, "p2")], [metric(3, reward__overall=0.5)])
    assert ask("/state")[0] == 200


def test_a_page_is_built_again_only_after_a_pause(tmp_path):
    run = make_run(tmp_path, [rollout()])
    now = [0.0]

    def slow(split, name):
        now[0] += 2.0
        return frames(split, name)

    live = Live(run, slow, lambda: now[0])
    first, state = live.page(), live.state()
    make_run(run, [rollout(), rollout(2, "p2")])
    for now[0], is_new in ((11.0, False), (13.0, True)):
        assert (live.state() != state) == is_new
        assert (live.page() != first) == is_new
    assert now[0] == 15.0  # of the new prompt alone


@pytest.mark.parametrize(
    "path",
    ["/config.json", "/../config.json", "/%2e%2e/secret", "//etc/passwd", "/state/../x", "*"],
)
def test_no_file_is_served(served, path):
    run, _, ask = served
    (run.parent / "secret").write_text("secret")
    status, _, text = ask(path)
    assert status == 404
    assert text == "there is / and /state"


def test_only_local_names_are_answered(served):
    _, server, ask = served
    assert server.server_address[0] == "127.0.0.1"
    assert ask("/state", f"localhost:{server.server_port}")[0] == 200
    for host in ("evil.example", f"evil.example:{server.server_port}", "localhost"):
        assert ask("/", host)[0] == 403


def test_an_unreadable_line_is_named(served):
    run, _, ask = served
    (run / "metrics.jsonl").write_text("nonsense\n")
    status, _, text = ask("/")
    assert status == 500
    assert "metrics.jsonl:1: not a JSON object" in text
    assert "<" not in text


def test_what_cannot_be_served_is_told_in_a_line(tmp_path, capsys):
    assert main([str(tmp_path), "--serve", "--port=0"]) == 1
    assert "metrics.jsonl does not exist; give the workdir" in capsys.readouterr().err
    run = make_run(tmp_path)
    assert main([str(run), "--serve", "--port=99999"]) == 1
    assert "--port 99999: " in capsys.readouterr().err
