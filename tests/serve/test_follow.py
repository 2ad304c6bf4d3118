"""The newest checkpoint of a run is taken over; what is under way ends on the old one."""

import concurrent.futures
import json
import os
import shutil
import time

import jax
import serve_rig as rig
from repo import DEMO_MODEL

from configs import demo
from evr1.learner.checkpoint import Checkpoints
from evr1.models import load_model
from evr1.models.io import hf


def test_weights_of_a_run_are_taken_over(tmp_path):
    run = tmp_path / "one"
    run.mkdir()
    config = demo.get_config()
    config.model = str(DEMO_MODEL)
    (run / "config.json").write_text(json.dumps(config.to_dict()))
    first = hf.load_params(DEMO_MODEL, load_model(DEMO_MODEL))
    checkpoints = Checkpoints(run / "checkpoints", keep=2)
    checkpoints.save(1, {"params": first}, {})
    checkpoints.wait()
    flags = ("--follow", str(run), "--slots", "1", "--rows", "2", "--name", "demo_model")
    flags += ("--drain_s", "1")
    with rig.serving(*flags) as server:
        before = rig.chat(server.port, logprobs=True)
        assert before.json["system_fingerprint"] == "evr1-one-step-1"
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            under_way = threads.submit(rig.chat, server.port, **rig.LONG)
            checkpoints.save(2, {"params": jax.tree.map(lambda x: 0.9 * x, first)}, {})
            checkpoints.close()
            end = time.monotonic() + 120
            while rig.call(server.port, "GET", "/health").json["version"] != "evr1-one-step-2":
                assert time.monotonic() < end
                time.sleep(0.1)
            assert under_way.result().json["system_fingerprint"] == "evr1-one-step-1"
        after = rig.chat(server.port, logprobs=True)
        assert after.json["system_fingerprint"] == "evr1-one-step-2"
        told = [reply.json["choices"][0]["logprobs"]["content"] for reply in (before, after)]
        assert told[0][0]["logprob"] != told[1][0]["logprob"]  # nothing of the old prompt is kept
        # One that is cut off changes nothing, and is told of in a line.
        shutil.copytree(run / "checkpoints" / "2", tmp_path / "3")
        files = [file for file in (tmp_path / "3" / "state").rglob("*") if file.is_file()]
        os.truncate(max(files, key=lambda file: file.stat().st_size), 1000)
        (tmp_path / "3").rename(run / "checkpoints" / "3")
        rig.until(server.port, "evr1_follow_faults_total", 1)
        assert rig.chat(server.port, logprobs=True).json["choices"] == after.json["choices"]
        assert [line.startswith("serve: evr1-one-step-2 stays: ") for line in server.lines] == [
            True
        ]
        # What is under way when the time to drain is over is refused by name.
        long = rig.LONG | {"max_tokens": 1024, "n": 16}
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            under_way = threads.submit(rig.chat, server.port, **long)
            rig.until(server.port, "evr1_requests_open", 1)
            server.process.terminate()
            assert under_way.result().error == (503, "server_shutdown")
        assert server.process.wait(60) == 0
