"""The sampling side: a model with its processor, opened to draw completions.

Training, held-out evaluation, the judge, the benchmarks and the tools draw through an `Actor`.
Actor and learner are the two sides of a run, as in IMPALA (arXiv 1802.01561): the actor draws with
the weights that the learner has published.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax

from evr1.batch.collate import Collator
from evr1.batch.features import Encoder, make_encoder
from evr1.batch.shapes import ShapeTable, shapes_of_examples
from evr1.data.errors import MediaError
from evr1.data.media.source import MediaSource, media_requests
from evr1.data.processor import Processor
from evr1.data.records import Example, Row
from evr1.models import Model, load_model
from evr1.models.io import hf, runs
from evr1.parallel import hosts, sharding
from evr1.parallel.mesh import actor_mesh
from evr1.sampler.driver import Sampler
from evr1.sampler.groups import OnFinish, Stretch
from evr1.sampler.sampling import Sampling
from evr1.sampler.weights import with_layers_apart
from evr1.types import Params, Rollouts

STRETCH_PREFILLS = 32  # of a stretch: one in so many slots is prefilled at a time


@dataclasses.dataclass(frozen=True)
class Actor:
    """A model that completions are drawn from; holds no parameters.

    Attributes:
        model: the network, without adapters.
        processor: of the model.
        slots: groups that decode at the same time; rounded up to the devices that share them.
        window: decode steps of one dispatch.
        mesh: that draws, see parallel.mesh.actor_mesh; None: the default device.
        shapes: buckets of prompts, and the room for completions; None: those of the examples that
            are drawn for, rounded up.
        source: where `encode` finds media; None: rows have none.
        encoder: of a frozen vision tower; None: prompts keep their pixels.
    """

    model: Model
    processor: Processor
    slots: int = 16
    window: int = 16
    mesh: jax.sharding.Mesh | None = None
    shapes: ShapeTable | None = None
    source: MediaSource | None = None
    encoder: Encoder | None = None

    @property
    def pos_grid(self) -> int:
        """Side of the model's learned position table."""
        return math.isqrt(self.model.config.vision.table)

    def load(self, directory: str, adapter: str = "") -> Params:
        """Reads the parameters of a model directory or a checkpoint, as `generate` takes them.

        Args:
            directory: of the model.
            adapter: directory of an adapter that is added to them; empty: none.
        """
        places = self.mesh and self.model.shardings(self.mesh)
        dtypes = self.model.compute_dtypes()
        params = runs.load_params(
            directory, self.model, shardings=places, dtype=dtypes, adapter=adapter
        )
        return with_layers_apart(params, self.model, self.mesh)

    def encode(self, row: Row, *, raw: bool = False) -> Example | MediaError:
        """Returns the row ready for the model, or why its media cannot be used.

        Args:
            row: the question.
            raw: the problem as it is, without the template of its type.
        """
        requests = media_requests(row)
        assert self.source is not None or not requests, "an actor without a source reads no media"
        try:
            loaded = [self.source.load(request) for request in requests] if self.source else []
        except MediaError as error:
            return error
        return self.processor.encode(row, loaded, raw=raw)

    def with_features(self, params: Params, examples: Sequence[Example]) -> list[Example]:
        """Returns the examples with their features, where the vision tower is frozen."""
        return list(examples) if self.encoder is None else self.encoder(params, examples)

    def with_encoder(self, held: int) -> "Actor":
        """Returns the actor for a frozen vision tower.

        Args:
            held: prompts whose features are there at the same time.
        """
        assert self.shapes is not None
        sampler = self.sampler(1, self.shapes)
        encoder = make_encoder(
            self.model,
            sampler.prompts,
            groups=sampler.prefill_groups,
            held=held,
            patches=self.shapes.vision_rows[-1] * self.shapes.row_patches,
            mesh=self.mesh,
        )
        return dataclasses.replace(self, encoder=encoder)

    def sampling(self, **fields: Any) -> Sampling:
        """Returns how to draw from this model: its end and banned ids, and the fields given."""
        fields |= {"end_ids": self.processor.end_ids, "banned_ids": self.processor.banned_ids}
        return Sampling(**fields)

    def sampler(
        self, n: int, shapes: ShapeTable, slots: int = 0, prefill_groups: int | None = None
    ) -> Sampler:
        """Returns the event loop for n completions of each prompt; cheap, programs are shared.

        Args:
            n: completions of a prompt.
            shapes: buckets.
            slots: groups that decode at the same time; 0: the actor's.
            prefill_groups: see Sampler.
        """
        shards = sharding.batch_shards(self.mesh)
        return Sampler(
            self.model,
            shapes=shapes,
            geometry=self.processor.geometry,
            pos_grid=self.pos_grid,
            n=n,
            slots=-(-(slots or self.slots) // shards) * shards,
            window=self.window,
            pad_id=self.processor.pad_id,
            mesh=self.mesh,
            prefill_groups=prefill_groups,
        )

    def generate(
        self,
        params: Params,
        examples: Sequence[Example],
        request_ids: Sequence[int],
        sampling: Sampling,
        *,
        n: int = 1,
        slots: int = 0,
        on_finish: OnFinish | None = None,
        stretch: Stretch | None = None,
    ) -> Rollouts:
        """Draws n completions for each example, and the greedy ones that `sampling` asks for.

        Args:
            params: as `load` or `evr1.exchange.publish` return them.
            examples: the prompts.
            request_ids: one for each; with the seed they decide the random numbers.
            sampling: how to draw and when to stop.
            n: completions of a prompt.
            slots: see `sampler`.
            on_finish: see `Sampler.generate`.
            stretch: likewise.
        """
        shapes = self.shapes or shapes_of_examples(
            examples, self.processor.geometry, sampling.max_tokens
        )
        sampler = self.drawing(sampling, n, slots, stretch=stretch is not None, shapes=shapes)
        return sampler.generate(params, examples, request_ids, sampling, on_finish, stretch)

    def drawing(
        self,
        sampling: Sampling,
        n: int,
        slots: int = 0,
        *,
        stretch: bool = False,
        shapes: ShapeTable | None = None,
    ) -> Sampler:
        """Returns what `generate` draws with.

        Args:
            sampling: see `generate`.
            n: likewise.
            slots: likewise.
            stretch: whether there is one.
            shapes: buckets; None: the actor's.
        """
        shapes, slots = shapes or self.shapes, slots or self.slots
        assert shapes is not None
        # Where a rollout does not wait for its last groups, slots do not wait for each other. Else
        # all that fills the slots prefills as many at a time: it is the same program.
        batch = slots // STRETCH_PREFILLS if stretch else min(slots, self.slots) // 8
        return self.sampler(n + sampling.greedy_rows, shapes, slots, max(1, batch))

    def collator(self, shapes: ShapeTable) -> Collator:
        """Returns what makes one record of many prompts."""
        return Collator(shapes, self.processor.geometry, self.pos_grid, self.processor.pad_id)

    def texts(self, rollouts: Rollouts) -> list[str]:
        """Returns the completions as text, G * N of them in order."""
        tokens = rollouts.completions.reshape(-1, rollouts.completions.shape[-1])
        lengths = rollouts.drawn.reshape(-1)
        return [self.processor.decode(t[:n].tolist()) for t, n in zip(tokens, lengths, strict=True)]


def open_actor(
    directory: str,
    processor: Processor | None = None,
    *,
    dtype: str = "float32",
    mesh: jax.sharding.Mesh | None = None,
    **fields: Any,
) -> Actor:
    """Opens a model to draw from; its parameters are read by `Actor.load`.

    Args:
        directory: HF directory, or an Orbax one.
        processor: of the directory; None: made with its defaults.
        dtype: of the computation.
        mesh: devices; their copies of the weights are cut over its `tensor` axis, and where that is
            1, over what `actor_mesh` finds; None: the default device.
        **fields: further ones of `Actor`.

    Raises:
        ValueError: the directory is no model that evr1 knows.
    """
    model = load_model(directory, dtype=dtype, remat="none")
    processor = processor or Processor.from_hf(str(hf.side_dir(directory)))
    mesh = hosts.local_mesh(actor_mesh(mesh, model.config.kv_heads))
    return Actor(model, processor, mesh=mesh, **fields)
