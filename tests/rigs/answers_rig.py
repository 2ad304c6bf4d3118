"""Answered samples of Video-MME, and folders of runs that hold them."""

import json

from evr1.evals.samples import Answer, Frames, Writer, path_of
from evr1.evals.tasks.base import Media, Sample

OPTIONS = ["A. red", "B. blue", "C. green", "D. grey"]


def answer(id, *responses, video=None, gold="A", duration="short", cut=False, **fields):
    """Returns an answered sample of Video-MME; without a response it is one that failed."""
    sample = Sample(
        id=id,
        doc={"question": "Which colour?", "options": OPTIONS, "answer": gold},
        media=(Media(f"data/{video or id}.mp4"),),
        tags={"duration": duration, "domain": "Film & Television, Arts"},
    )
    given = {
        "task": "video_mme",
        "sample": sample,
        "prompt": "official",
        "prompt_sha256": "0" * 64,
        "preset": "smoke",
        "responses": responses,
        "finishes": ("length" if cut else "stop",) * len(responses),
        "tokens": (3,) * len(responses),
        "frames": (Frames(2, (0.0, 1.5), (32, 48), 12),),
        "reason": "" if responses else "undecodable",
        "seed": 7,
        "seconds": 0.25,
    }
    return Answer(**given | fields)


def write_run(folder, answers, n_expected=None, part=0, parts=1, **manifest):
    """Writes a run of Video-MME and returns its folder."""
    with Writer(path_of(folder, "video_mme", part, parts)) as writer:
        for each in answers:
            writer.append(each)
    if n_expected is not None:
        manifest |= {"n_expected": {"video_mme": n_expected}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
