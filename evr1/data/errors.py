"""The error of media that cannot be used: it has a kind, so that a run can count it and go on."""

import pathlib

MISSING = "missing"
KINDS = {
    MISSING: "correct the path or data.media_dir",
    "undecodable": "repair or re-encode the file, or drop its rows",
    "empty": "drop its rows",
    "clip": "correct video_start and video_end",
    "row": "correct the row",
    "unreachable": "nothing is known of the file itself; run again",
    "timeout": "raise data.decode_timeout_s, with which it is tried again, or re-encode the file",
    "crashed": "re-encode the file or drop its rows",
    "error": "see the message above; this is a fault of evr1 or of its set-up",
    "uncached": "run evr1 preprocess with these budgets, or set data.source to prefer_preprocessed",
}


class MediaError(ValueError):
    """An image or a video that gives no pixels.

    Attributes:
        kind: a key of `KINDS`, which holds the fix that belongs to it.
        path: the file.
        reason: what is wrong with it, in one line.
    """

    def __init__(self, kind: str, path: str | pathlib.Path, reason: str):
        super().__init__(f"{path}: {reason}; {KINDS[kind]}")
        self.kind = kind
        self.path = str(path)
        self.reason = reason
