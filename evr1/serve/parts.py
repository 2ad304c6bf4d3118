"""The parts that a server is made of: the model, decoders, and a folder for media."""

import contextlib

from evr1.data.media.decode import DecodePool
from evr1.data.processor import Processor
from evr1.models.io import hf
from evr1.parallel.mesh import make_mesh
from evr1.sampler.actor import Actor, open_actor
from evr1.serve.fetch import Fetcher
from evr1.serve.media import MediaFolder
from evr1.serve.settings import ServeSettings

BYTES_OF_A_PIXEL = 48  # of the frames that a decoder holds at a time, at most


def open_parts(
    settings: ServeSettings, model: str, stack: contextlib.ExitStack
) -> tuple[Actor, DecodePool, MediaFolder, str]:
    """Returns the model without its weights, decoders, the folder, and where the chat template is.

    Args:
        settings: of the server.
        model: directory or checkpoint.
        stack: closes them.

    Raises:
        ValueError: the directory is no model that evr1 knows.
    """
    side = str(hf.side_dir(model))
    processor = Processor.from_hf(side, sanitize=settings.sanitize)
    mesh = None
    if settings.tensor > 1:
        mesh = make_mesh(data=1, fsdp=1, tensor=settings.tensor)
    actor = open_actor(
        model, processor, dtype=settings.dtype, mesh=mesh, slots=settings.slots,
        window=settings.window,
    )  # fmt: skip
    memory = (1 << 30) + BYTES_OF_A_PIXEL * settings.limits.source_pixels
    pool = DecodePool(settings.workers, settings.decode_s, frame_s=0, memory_bytes=memory)
    stack.enter_context(pool)
    access, limit = settings.access, settings.limits.media_bytes
    fetcher = Fetcher(access.allow_http, access.http_hosts, limit)
    folder = MediaFolder(access.media_dir, fetcher, limit)
    stack.callback(folder.close)
    return actor, pool, folder, side
