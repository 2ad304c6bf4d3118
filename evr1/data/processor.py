"""Prompt tokens, positions and patches of a row and its decoded media, as HF's processors do.

A chat template writes one placeholder per medium. In Qwen2-VL and Qwen2.5-VL it becomes a run of
placeholders. In Qwen3-VL a video's placeholder becomes, for each temporal patch, its time in
seconds and a bracketed run of placeholders; brackets that the chat template wrote round it stay
(transformers >= 5.12 keeps them, 4.57 and vLLM drop them).

Source: transformers 5.24, Qwen3VLProcessor, Qwen2VLProcessor, Qwen2_5_VLProcessor.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers

from evr1.data import control_tokens, positions, prompts
from evr1.data.control_tokens import ControlTokens
from evr1.data.media.patches import patchify
from evr1.data.records import Example, Geometry, Media, MediaSize, Row, Turn
from evr1.data.rows import user_texts
from evr1.data.tokenizer import load_tokenizer
from evr1.formats import adapter_files, box_frames, chat_template, processor_files, think_block
from evr1.formats.words import counted

_MEMO_CHARS = 64  # pieces up to this length recur (time marks); longer ones are questions
_MEMO_ENTRIES = 65536
_RUN_FAMILIES = ("qwen2_vl", "qwen2_5_vl")  # a video is one run of placeholders, without time marks


# A part of a prompt: (ids, None) of text, ([id], count) of a run of placeholders.
Piece = tuple[list[int], int | None]


class VisionTokens(NamedTuple):
    """The special tokens that stand for media."""

    image: str = "<|image_pad|>"  # placeholder of one visual token
    video: str = "<|video_pad|>"
    start: str = "<|vision_start|>"  # opens a run of placeholders
    end: str = "<|vision_end|>"


@dataclasses.dataclass(frozen=True)
class Processor:
    """The prompt format of one model, read from its HF directory; cheap to send to a process.

    Attributes:
        tokenizer: the tokenizer of the HF directory.
        chat_template: Jinja2 source of the model's chat template.
        special_tokens: named special tokens that the chat template may use.
        geometry: how pixels become patches.
        pad_id: token that fills padding.
        end_ids: tokens that end a completion.
        banned_ids: placeholders of media; a sampled one would ask for pixels that do not exist.
        vision: the tokens that stand for media.
        template: Jinja2 source of the task template.
        thinking: ask for reasoning between think tags.
        box_scale: what box coordinates count: pixels, unit or thousand.
        template_variables: that the chat template is rendered with.
        control: control tokens that a row's text may spell.
        sanitize: read those as text.
        has_time_marks: a video's temporal patches stand apart, each with its time.
        tokens_per_second: positions a second of video; 0: one a temporal patch.
        vocab_size: ids that the model knows; 0: not said.
    """

    tokenizer: tokenizers.Tokenizer
    chat_template: str
    special_tokens: Mapping[str, str]
    geometry: Geometry
    pad_id: int
    end_ids: tuple[int, ...]
    banned_ids: tuple[int, ...]
    vision: VisionTokens
    template: str
    thinking: bool
    box_scale: str
    template_variables: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    control: ControlTokens | None = None
    sanitize: bool = False
    has_time_marks: bool = True
    tokens_per_second: float = 0.0
    vocab_size: int = 0
    _memo: dict[str, list[int]] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_hf(
        cls,
        hf_dir: str,
        template: str = "",
        thinking: bool | None = None,
        box_scale: str = "pixels",
        template_variables: str = "",
        sanitize: bool = False,
    ) -> "Processor":
        """Returns the processor of a HF directory.

        Args:
            hf_dir: directory with tokenizer.json and a chat template.
            template: Jinja2 file that replaces the built-in task template; empty: built in.
            thinking: True asks for reasoning between think tags. True and False set the chat
                template's variable enable_thinking, where it has one; None leaves its default.
            box_scale: what box coordinates count: pixels, unit (0-1) or thousand (0-1000).
            template_variables: further ones of the chat template, a JSON object; empty: none.
            sanitize: control tokens that a row's text spells are read as text.

        Raises:
            ValueError: a file is missing or wrong; names it.
        """
        if box_scale not in box_frames.SCALES:
            raise ValueError(
                f"box_scale={box_scale!r} is not one of {', '.join(box_frames.SCALES)}"
            )
        root = Path(hf_dir)
        if not root.is_dir():
            raise ValueError(
                f"{hf_dir} is not a directory; give a HF directory (config.json, *.safetensors, "
                "tokenizer): nothing is downloaded"
            )
        adapter_files.refuse_as_model(root)
        config = processor_files.read_json(root / "tokenizer_config.json")
        family, tokens_per_second, vocab_size = _family(root)
        tokenizer = load_tokenizer(root, config)
        special = chat_template.special_tokens(root)
        vision = _vision_tokens(root, tokenizer, special)
        ends = _end_ids(root, tokenizer, special)
        pad = tokenizer.token_to_id(special.get("pad_token", "<|endoftext|>"))
        return cls(
            tokenizer=tokenizer,
            chat_template=chat_template.read(root),
            special_tokens=special,
            geometry=geometry_of(root),
            pad_id=ends[0] if pad is None else pad,
            end_ids=ends,
            banned_ids=tuple(_id_of(root, tokenizer, t) for t in vision[:2]),
            vision=vision,
            template=_task_template(template),
            thinking=bool(thinking),
            box_scale=box_scale,
            template_variables=chat_template.choose_variables(root, thinking, template_variables),
            control=ControlTokens.of(root, tokenizer, chat_template.read(root)),
            sanitize=sanitize,
            has_time_marks=family not in _RUN_FAMILIES,
            tokens_per_second=tokens_per_second,
            vocab_size=vocab_size,
        )

    def prompt_text(self, row: Row, raw: bool = False) -> str:
        """Returns the user's turn with media markers: the raw problem, or the template's text."""
        if raw:
            return row.problem
        return prompts.render_task(
            row, self.template, thinking=self.thinking, box_scale=self.box_scale
        )

    def encode(
        self, row: Row, media: Sequence[Media], raw: bool = False, like: Example | None = None
    ) -> Example:
        """Returns the row ready for the model.

        Args:
            row: the question.
            media: its images and videos, each kind in the row's order.
            raw: the problem as it is instead of the task template.
            like: another question that shows the same media in the same order, whose patches are
                taken; None: they are cut.

        Raises:
            ValueError: markers, media and placeholders disagree; names the row.
        """
        row, shown = self._shown(row), row
        text = self.prompt_text(row, raw)
        ordered = _in_order(row, text, media)
        grid, patches = self._cut(ordered) if like is None else (like.grid_thw, like.patches)
        sizes = [
            MediaSize((t, h, w), m.timestamps, m.is_video)
            for m, (t, h, w) in zip(ordered, grid.tolist(), strict=True)
        ]
        ids, counts = [], []
        for piece, count in self._pieces(row, text, sizes):
            ids += piece
            counts += [1] * len(piece) if count is None else [count]
        tokens = np.repeat(np.array(ids, np.int32), counts)
        self.check_ids(row, ids)
        is_visual = np.isin(tokens, self.banned_ids)
        try:
            where, following = self._positions(is_visual, grid, ordered)
        except ValueError as e:
            raise ValueError(f"{row.source} ({row.problem_id}): {e}") from e
        return Example(
            row=shown,
            tokens=tokens,
            is_visual=is_visual,
            positions=where,
            next_position=following,
            patches=patches,
            grid_thw=grid,
            is_image=np.array([not m.is_video for m in ordered], bool),
        )

    def spelled(self, rows: Sequence[Row]) -> str:
        """Returns a line about rows whose text spells control tokens; empty where none does."""
        found = [row for row in rows if self.control and self.control.are_in(row)]
        if not found:
            return ""
        how = "text (data.sanitize)" if self.sanitize else "such; data.sanitize reads them as text"
        return (
            f"control tokens of the model in the text of {counted(len(found), 'row')} are read as "
            f"{how}; first: {found[0].source} ({found[0].problem_id})"
        )

    def _shown(self, row: Row) -> Row:
        """Returns the row with marks round control tokens, where they are to be text."""
        return self.control.mark(row) if self.sanitize and self.control else row

    def _cut(self, media: Sequence[Media]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the grids of media, int32[V, 3], and their patches, one after the other."""
        cut = [patchify(m, self.geometry) for m in media]
        grid = np.array([g for _, g in cut], np.int32).reshape(-1, 3)
        if len(cut) == 1:
            return grid, cut[0][0]
        channels = 3 * self.geometry.temporal_patch_size * self.geometry.patch_size**2
        return grid, np.concatenate([np.zeros((0, channels), np.uint8), *(p for p, _ in cut)])

    @property
    def has_unknown_ids(self) -> bool:
        """Whether the tokenizer can give an id that the model has no embedding for."""
        return 0 < self.vocab_size <= max(self.tokenizer.get_vocab().values())

    def check_ids(self, row: Row, ids: Sequence[int]) -> None:
        """Raises ValueError for an id without an embedding: jax would silently take another one."""
        if self.vocab_size and max(ids, default=0) >= self.vocab_size:
            token = self.tokenizer.id_to_token(max(ids))
            raise ValueError(
                f"{row.source} ({row.problem_id}): {token!r} has id {max(ids)}, the model's"
                f" vocabulary ids 0 to {self.vocab_size - 1}; use the model's own tokenizer"
            )

    def plan(self, row: Row, sizes: Sequence[MediaSize], raw: bool = False) -> int:
        """Returns the number of prompt tokens that `encode` would give, from the media's sizes.

        Args:
            row: the question.
            sizes: of its images and videos, each kind in the row's order.
            raw: the problem as it is instead of the task template.

        Raises:
            ValueError: markers and media disagree; names the row.
        """
        return sum(_length(piece) for piece in self.pieces(row, sizes, raw))

    def pieces(self, row: Row, sizes: Sequence[MediaSize], raw: bool = False) -> Iterator[Piece]:
        """Yields the pieces of the prompt that `encode` would give, from the media's sizes.

        Args:
            row: the question.
            sizes: of its images and videos, each kind in the row's order.
            raw: the problem as it is instead of the task template.

        Raises:
            ValueError: markers and media disagree; names the row.
        """
        row = self._shown(row)
        text = self.prompt_text(row, raw)
        yield from self._pieces(row, text, _in_order(row, text, sizes))

    @property
    def end_id(self) -> int:
        """The token that ends an answer in the chat."""
        chat_end = self.tokenizer.token_to_id("<|im_end|>")
        return chat_end if chat_end in self.end_ids else self.end_ids[0]

    def tokenize(self, text: str) -> list[int]:
        """Returns the token ids of a text; special tokens in it are recognised, none are added."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    @functools.cached_property
    def think_open(self) -> bool:
        """Whether every prompt ends inside a think block: completions begin with reasoning."""
        return think_block.is_left_open(self._start_of_answer)

    def completion_ids(self, text: str) -> list[int]:
        """Returns the token ids of a completion that somebody else wrote, as the policy would.

        Where the prompt has opened the think block already, a tag that opens it again is dropped.
        """
        if self.think_open:
            text = think_block.without_opening(text, self._start_of_answer.rpartition(">")[2])
        return self.tokenize(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of a completion's ids, without end, padding and media tokens.

        Other special tokens stay: they may be tags, or parts of the answer.
        """
        kept = [int(i) for i in ids if i not in self._dropped_ids]
        return self.tokenizer.decode(kept, skip_special_tokens=False)

    @functools.cached_property
    def _start_of_answer(self) -> str:
        return chat_template.start_of_answer(
            self.chat_template, self.special_tokens, self.template_variables
        )

    @functools.cached_property
    def _dropped_ids(self) -> frozenset[int]:
        media = [self.tokenizer.token_to_id(token) for token in (*self.vision, "<|vision_pad|>")]
        # padding may be an ordinary token, and then a part of answers
        pad = self.tokenizer.get_added_tokens_decoder().keys() & {self.pad_id}
        return frozenset((*self.end_ids, *pad, *(i for i in media if i is not None)))

    def _pieces(self, row: Row, text: str, sizes: Sequence[MediaSize]) -> Iterator[Piece]:
        """Yields the prompt piece by piece."""
        try:
            turns = [*row.turns, Turn("user", text)]
            chat = prompts.render_chat(
                self.chat_template, turns, self.special_tokens, row.system, self.template_variables
            )
        except ValueError as e:
            raise ValueError(f"{row.source} ({row.problem_id}): {e}") from e
        pads = self.vision[:2]
        pad = re.compile(f"(?<!{control_tokens.START})(?:{'|'.join(map(re.escape, pads))})")
        parts, marks = pad.split(chat), pad.findall(chat)
        if marks != [pads[s.is_video] for s in sizes]:
            raise ValueError(
                f"{row.source} ({row.problem_id}): the chat prompt holds {len(marks)} placeholders "
                f"for {len(sizes)} media; check the chat template and the problem's text, where "
                "data.sanitize reads control tokens as text"
            )
        pending = parts[0]
        for size, after in zip(sizes, parts[1:], strict=True):
            t, h, w = size.grid_thw
            count = h * w // self.geometry.merge_size**2
            if not size.is_video or not self.has_time_marks:
                yield self._ids(pending), None
                yield [self.banned_ids[size.is_video]], t * count
                pending = after
                continue
            seconds = positions.patch_seconds(
                np.asarray(size.timestamps), self.geometry.temporal_patch_size
            )
            if len(seconds) != t:
                raise ValueError(
                    f"{row.source} ({row.problem_id}): {len(size.timestamps)} timestamps for {t} "
                    f"temporal patches; there must be one per frame"
                )
            for second in seconds.tolist():
                yield self._ids(f"{pending}<{second:.1f} seconds>{self.vision.start}"), None
                yield [self.banned_ids[1]], count
                pending = self.vision.end
            pending += after
        yield self._ids(pending), None

    def _positions(
        self, is_visual: np.ndarray, grid: np.ndarray, media: Sequence[Media]
    ) -> tuple[np.ndarray, int]:
        merge = self.geometry.merge_size
        if self.has_time_marks:
            return positions.mrope_positions(is_visual, grid, merge)
        paces = np.ones(len(media), np.float32)
        for i, medium in enumerate(media):
            if medium.is_video and self.tokens_per_second:
                seconds = self.geometry.temporal_patch_size / _sample_fps(medium)
                paces[i] = np.float32(self.tokens_per_second) * np.float32(seconds)
        return positions.run_positions(is_visual, grid, merge, paces)

    def _ids(self, piece: str) -> list[int]:
        ids = self._memo.get(piece)
        if ids is None:
            ids = self.tokenize(piece)
            if self.sanitize and self.control and control_tokens.START in piece:
                ids = self.control.encode(piece, self.tokenizer, self.tokenize)
            if len(piece) <= _MEMO_CHARS and len(self._memo) < _MEMO_ENTRIES:
                self._memo[piece] = ids
        return ids


def _sample_fps(video: Media) -> float:
    """Returns the frames a second of a video, from its timestamps where the rate is not stored."""
    if video.sample_fps:
        return video.sample_fps
    span = video.timestamps[-1] - video.timestamps[0] if len(video.timestamps) > 1 else 0.0
    return (len(video.timestamps) - 1) / span if span else 1.0


def _task_template(path: str) -> str:
    return chat_template.read_text(Path(path)) if path else prompts.built_in_template()


def _length(piece: Piece) -> int:
    ids, count = piece
    return len(ids) if count is None else count


def _in_order(row: Row, text: str, media: Sequence[Any]) -> list[Any]:
    """Returns the media in the order of their markers in the text."""
    kinds = {"image": iter([m for m in media if not m.is_video])}
    kinds["video"] = iter([m for m in media if m.is_video])
    texts = user_texts(text, row.turns)
    markers = [m[1] for each in texts for m in prompts.MARKER.finditer(each)]
    if len(markers) != len(media) or markers.count("video") != sum(m.is_video for m in media):
        raise ValueError(
            f"{row.source} ({row.problem_id}): {len(markers)} markers "
            f"({markers.count('video')} of videos) for {len(media)} media; write one marker each"
        )
    return [next(kinds[k]) for k in markers]


def _vision_tokens(
    root: Path, tokenizer: tokenizers.Tokenizer, special: Mapping[str, str]
) -> VisionTokens:
    """Returns the media tokens, named by the tokenizer or by their defaults; all must be there."""
    keys = ("image_token", "video_token", "vision_start_token", "vision_end_token")
    defaults = VisionTokens()
    tokens = VisionTokens(*(special.get(k, d) for k, d in zip(keys, defaults, strict=True)))
    for token in tokens:
        _id_of(root, tokenizer, token)
    return tokens


def _id_of(root: Path, tokenizer: tokenizers.Tokenizer, token: str) -> int:
    id_ = tokenizer.token_to_id(token)
    if id_ is None:
        raise ValueError(f"{root}/tokenizer.json has no token {token}; use a Qwen-VL tokenizer")
    return id_


def _end_ids(
    root: Path, tokenizer: tokenizers.Tokenizer, special: Mapping[str, str]
) -> tuple[int, ...]:
    """Returns the tokens that end a completion: generation_config.json's, then the chat's own."""
    eos = processor_files.read_json(root / "generation_config.json").get("eos_token_id")
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not all(type(i) is int and 0 <= i < 2**32 for i in ids):
        raise ValueError(f"{root}/generation_config.json: eos_token_id={eos!r}; give token ids")
    # transformers writes its default there, whatever the vocabulary.
    ids = [i for i in ids if tokenizer.id_to_token(i) is not None]
    for name in (special.get("eos_token"), "<|im_end|>", "<|endoftext|>"):
        id_ = None if name is None else tokenizer.token_to_id(name)
        if id_ is not None:
            ids.append(id_)
    if not ids:
        raise ValueError(f"{root}: no end token; give eos_token_id in generation_config.json")
    return tuple(dict.fromkeys(ids))


def _family(root: Path) -> tuple[str, float, int]:
    """Returns model_type, the positions a second of video, and vocab_size of config.json."""
    config = processor_files.read_json(root / "config.json")
    family = config.get("model_type", "")
    size = (_section(config, "text_config") or config).get("vocab_size")
    size = size if type(size) is int else 0  # the model refuses it
    if family != "qwen2_5_vl":
        return family, 0.0, size
    pace = _section(config, "vision_config").get("tokens_per_second", 4)
    if type(pace) not in (int, float) or pace <= 0:
        raise ValueError(
            f"{root}/config.json: vision_config.tokens_per_second={pace!r}; give a number over 0"
        )
    return family, float(pace), size


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Returns an object of config.json; empty where it is none, which the model refuses."""
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}


def geometry_of(root: Path) -> Geometry:
    """Returns the patch sizes of the processor files, which must agree, also with config.json."""
    processor_files.statistics(
        root
    )  # the model reads them; here they are refused before any is loaded
    vision = dict(_section(processor_files.read_json(root / "config.json"), "vision_config"))
    vision["merge_size"] = vision.get("spatial_merge_size")
    sources = {**processor_files.settings(root), "config.json vision_config": vision}
    names = [f.name for f in dataclasses.fields(Geometry)]
    sizes = {
        file: tuple(source[n] for n in names)
        for file, source in sources.items()
        if all(source.get(n) is not None for n in names)
    }
    if not sizes:
        raise ValueError(
            f"{root}: no {', '.join(names)} in preprocessor_config.json or config.json"
        )
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{root}: {', '.join(names)} differ: {sizes}; correct the odd one")
    return Geometry(*next(iter(sizes.values())))
