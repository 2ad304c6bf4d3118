"""Addresses of other machines: what may lie in a bucket, and that all else is on this machine."""

import os
import re

_REMOTE = re.compile(r"(?i)^(https?|ftp|s3|gs|gcs|az|abfss?|hf|oss|hdfs)://")
_BUCKET = re.compile("(s3|gs)://")
FIX = "this is read and written on this machine alone: mount the bucket, or copy it"


def is_remote(text: str) -> bool:
    """Returns whether a path is an address.

    >>> is_remote("gs://bucket/run"), is_remote("/data/gs/run")
    (True, False)
    """
    return _REMOTE.match(text) is not None


def is_bucket(text: str) -> bool:
    """Returns whether a path is an address in a bucket, of those that are read and written.

    >>> is_bucket("s3://bucket/shards"), is_bucket("https://host/shards"), is_bucket("shards")
    (True, False, False)
    """
    return _BUCKET.match(text) is not None


def join(folder: str, path: str) -> str:
    """Returns a path in a folder; one that is absolute, or an address, stays as it is.

    >>> join("clips", "a.mp4"), join("clips", "s3://bucket/a.mp4"), join("s3://bucket", "a.mp4")
    ('clips/a.mp4', 's3://bucket/a.mp4', 's3://bucket/a.mp4')
    """
    return path if is_bucket(path) else os.path.join(folder, path)
