"""What a benchmark is: rows, media, prompts, and rules that score a response.

A rule sees a row as its official file has it (a `Doc`) and a response, and nothing else, so that
the same responses can be scored by the rules of several kits in one pass.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Doc = Mapping[str, Any]  # a row as the official file has it

# What `Verdict.extracted` says where a kit asks a judge or draws an option at random.
JUDGE, RANDOM = "<JUDGE>", "<RANDOM>"
# The profile of our own rule.
OURS = "evr1"
# A name for Task.differs, and its reason: ours goes on where the kit does not.
STOPS = "kit_stops"
KIT_STOPS = {STOPS: "the kit stops there with an error"}


class Verdict(NamedTuple):
    """What a rule makes of a response."""

    extracted: Any  # what was read; None or "": nothing
    score: float | None  # None: the rule leaves the response out, or it needs a judge or a draw
    differs: str = ""  # where it differs from the kit on purpose: the name in Task.differs


class Finding(NamedTuple):
    """What a fact of a kit gives: a table or a text where a verdict has a score."""

    extracted: Any
    value: Any


@dataclasses.dataclass(frozen=True)
class Media:
    """A video or an image that a sample shows.

    Attributes:
        path: relative to the folder of the benchmark.
        kind: "video" or "image".
        start_s: seconds; where the clip starts, None: at the start of the file.
        end_s: seconds; None: at its end.
        frames_per_s: rate of the images of a video that is a folder of them; None: it is a file.
    """

    path: str
    kind: str = "video"
    start_s: float | None = None
    end_s: float | None = None
    frames_per_s: float | None = None

    def __post_init__(self):
        if self.frames_per_s is not None and not (self.kind == "video" and self.frames_per_s > 0):
            raise ValueError(
                f"{self.path}: frames_per_s={self.frames_per_s} of a medium of kind {self.kind}; "
                "give a rate over 0, and only for a video that is a folder of images"
            )


class Show(NamedTuple):
    """The place of a medium in a prompt, or that of some of its frames.

    Attributes:
        medium: its place in Sample.media.
        frames: (first, last + 1) of the temporal patches, two frames each, that are shown here;
            None: all.
    """

    medium: int = 0
    frames: tuple[int, int] | None = None


class Subtitles(NamedTuple):
    """The place of the subtitles in a prompt, which is empty where a sample has none.

    Attributes:
        start: what stands before the lines.
        joiner: what stands between them.
        end: what stands behind them.
        shown_only: whether only lines that a frame of the video falls into are given.
        between_frames: whether the lines stand between the frames of the video before this place,
            each run of lines with its own start and end; it implies shown_only.
        offset_s: seconds; where the video starts in the time of the subtitles.
        duration_s: seconds of the video, where a line between frames stops that has no end.
    """

    start: str
    joiner: str = "\n"
    end: str = "\n"
    shown_only: bool = True
    between_frames: bool = False
    offset_s: float = 0.0
    duration_s: float = 0.0


Part = str | Show | Subtitles


@dataclasses.dataclass(frozen=True)
class Choices:
    """How a reply is chosen where none is generated: the likeliest of a few continuations.

    The last token of `begin` with a continuation stands for it. At the end of `begin`, of these
    tokens the one with the greatest logit is taken, the first of equals, whatever other token is
    greater. The response is its continuation without blanks around it.

    Attributes:
        begin: text that the reply begins with, right behind the head of the model's turn. Where
            that opens a block of reasoning, the block is closed first.
        continuations: texts that may follow it.
    """

    begin: str
    continuations: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One question of a benchmark.

    Attributes:
        id: unique within the task, and the same for ever.
        doc: the row as it was downloaded.
        media: what the prompt shows.
        tags: what sub-scores are made by; a tuple where a sample carries several labels.
        group: samples of one group are scored together; "": alone.
        subtitles: path of the subtitle file, relative to the folder of the benchmark; "": none.
        video: name of the video that the media were cut from; "": its first medium is no cut.
    """

    id: str
    doc: Doc
    media: tuple[Media, ...]
    tags: Mapping[str, str | tuple[str, ...]] = dataclasses.field(default_factory=dict)
    group: str = ""
    subtitles: str = ""
    video: str = ""

    @property
    def cluster(self) -> str:
        """The video whose questions are not independent of this one."""
        return self.video or (self.media[0].path if self.media else self.id)


class Record(NamedTuple):
    """A sample and what a rule made of its response."""

    sample: Sample
    verdict: Verdict


class Fingerprint(NamedTuple):
    """A text as a fact about a kit tells of it."""

    sha256: str

    @classmethod
    def of(cls, text: str) -> "Fingerprint":
        """Returns that of a text."""
        return cls(hashlib.sha256(text.encode("utf-8")).hexdigest())


Rule = Callable[[Doc, str], Verdict]
Prompt = Callable[[Sample], tuple[Part, ...]]
Aggregate = Callable[[Sequence[Record]], dict[str, float]]
# Of a row and a response: yields prompts, is sent the reply to each, and returns what the judge
# makes of the response. Raises ValueError where a reply cannot be read.
Judge = Callable[[Doc, str], Generator[str, str, Verdict]]


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a benchmark comes from, and what a complete copy of it holds.

    Attributes:
        hub: names of the data set, the present one first.
        n: scored questions.
        counts: tag -> label -> questions, as far as they are known.
        chance: percent that guessing among the options gives; None: it has no meaning.
        metric: what the headline is.
        frames: the frame preset that is recommended.
        judge: what needs a judge; "": nothing.
        licence: as its page states it; "": not known.
    """

    hub: tuple[str, ...]
    n: int
    counts: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    chance: float | None = None
    metric: str = "accuracy"
    frames: str = "easyvideor1"
    judge: str = ""
    licence: str = ""


@dataclasses.dataclass(frozen=True)
class Task:
    """A benchmark.

    Attributes:
        name: e.g. "lvbench".
        source: see Source.
        load: yields the samples of a folder that holds the official files; reads annotations only.
            Raises ValueError in one line where a file is missing or a row is wrong.
        embedded: of the folder, the media that stand inside the annotation files, which `prepare
            --unpack` writes: yields (path as in Media, bytes). None: media are files of their own.
        prompts: prompt profile -> prompt; the first is the default.
        rules: scoring profile -> rule; "evr1" is ours: it never guesses, and an unparsed response
            scores 0.
        choices: prompt profile -> what a reply is chosen from; in other profiles it is generated.
        judges: scoring profile -> judge of the responses that its rule leaves to one.
        aggregates: scoring profile -> aggregate, for those whose scores are no plain mean over all
            samples. The first key of a result is the headline. Shares are between 0 and 1.
        facts: (what, profile) -> function of (doc, response), for facts about a kit that are
            neither a rule nor an aggregate over records. Where a fact has a variant, names a
            function of the kit or tells how it was run, the doc holds it as "variant", "scorer" or
            "kind". A value is a score, a Verdict, or a text's Fingerprint. A fact about a "case"
            stands before the rule, where the kit's own score is no number.
        differs: name -> why our value differs from the kit's on purpose.
        file: path of the Python file that a task of a user's own comes from; "": it is built in.
        about: what it is; "": what the module of `load` says.
    """

    name: str
    source: Source
    load: Callable[[Path], Iterator[Sample]]
    prompts: Mapping[str, Prompt]
    rules: Mapping[str, Rule]
    choices: Mapping[str, Choices] = dataclasses.field(default_factory=dict)
    judges: Mapping[str, Judge] = dataclasses.field(default_factory=dict)
    aggregates: Mapping[str, Aggregate] = dataclasses.field(default_factory=dict)
    facts: Mapping[tuple[str, str], Callable[[Doc, Any], Any]] = dataclasses.field(
        default_factory=dict
    )
    differs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    embedded: Callable[[Path], Iterator[tuple[str, bytes]]] | None = None
    file: str = ""
    about: str = ""
