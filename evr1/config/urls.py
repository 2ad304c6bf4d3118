"""Addresses of other machines: nothing is read from them or written to them."""

import re

_REMOTE = re.compile(r"(?i)^(https?|ftp|s3|gs|gcs|az|abfss?|hf|oss|hdfs)://")
FIX = "nothing is read from or written to other machines: mount the bucket, or copy it"


def is_remote(text: str) -> bool:
    """Returns whether a path is an address.

    >>> is_remote("gs://bucket/run"), is_remote("/data/gs/run")
    (True, False)
    """
    return _REMOTE.match(text) is not None
