"""Four short clips of a shape that moves, and true questions about them."""

import functools
import io
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

FPS = 8
HEIGHT, WIDTH = 64, 96
_SIZE = 20  # of the shape, pixels
_CODECS = {".webm": "libvpx", ".avi": "mpeg4"}  # by the ending of a file; else H.264


class Scene(NamedTuple):
    """A clip: what moves in it, its colour, where to, and for how long."""

    shape: str
    colour: str
    way: str
    seconds: int


SCENES = (
    Scene("square", "red", "rightwards", 4),
    Scene("disc", "blue", "leftwards", 3),
    Scene("triangle", "green", "downwards", 6),
    Scene("cross", "yellow", "upwards", 5),
)
_RGB = {"red": (220, 40, 40), "blue": (40, 60, 220), "green": (40, 180, 60)}
_RGB |= {"yellow": (230, 210, 40)}
_SHAPES = ("square", "disc", "triangle", "cross", "ring", "star", "arrow", "heart")
_COLOURS = ("red", "blue", "green", "yellow", "purple", "orange", "brown", "pink")
_WAYS = ("rightwards", "leftwards", "downwards", "upwards", "in circles", "in zigzags")
_WAYS += ("towards us", "nowhere")


class Question(NamedTuple):
    """A question about a scene: texts of options, and the place of the right one."""

    text: str
    options: list[str]
    place: int

    @property
    def letter(self) -> str:
        """The letter of the right option."""
        return chr(ord("A") + self.place)

    @property
    def answer(self) -> str:
        """The text of the right option."""
        return self.options[self.place]

    def lines(self, form: str = "{letter}. {text}") -> list[str]:
        """Returns the options with their letters."""
        return [form.format(letter=chr(65 + i), text=t) for i, t in enumerate(self.options)]


def ask(scene: int, number: int = 0, count: int = 4) -> Question:
    """Returns a question about a scene; each number asks otherwise, and has its gold elsewhere.

    Args:
        scene: its place in SCENES.
        number: of the question on this scene.
        count: options, at most 8.
    """
    shape, colour, way, _ = SCENES[scene]
    text, right, texts = (
        ("Which colour does the moving shape have?", colour, _COLOURS),
        ("What shape is it that moves?", shape, _SHAPES),
        ("Where does the shape go?", way, _WAYS),
    )[number % 3]
    options = [each for each in texts if each != right][: count - 1]
    place = (scene + number) % count
    again = f" Look for the time no. {number // 3 + 1}." if number > 2 else ""
    return Question(text + again, [*options[:place], right, *options[place:]], place)


def _frame(scene: Scene, second: float) -> np.ndarray:
    """Returns uint8[H, W, 3]: a scene at a moment, on a ground that brightens."""
    image = np.full((HEIGHT, WIDTH, 3), 40 + round(60 * second / scene.seconds), np.uint8)
    done = second / scene.seconds
    across, down = (WIDTH - _SIZE) // 2, (HEIGHT - _SIZE) // 2
    if scene.way in ("rightwards", "leftwards"):
        across = round((WIDTH - _SIZE) * (done if scene.way == "rightwards" else 1 - done))
    else:
        down = round((HEIGHT - _SIZE) * (done if scene.way == "downwards" else 1 - done))
    y, x = np.mgrid[:_SIZE, :_SIZE] - (_SIZE - 1) / 2
    is_inside = {
        "square": np.ones_like(x, bool),
        "disc": x**2 + y**2 <= (_SIZE / 2) ** 2,
        "triangle": np.abs(x) <= (y + _SIZE / 2) / 2,
        "cross": np.minimum(np.abs(x), np.abs(y)) <= _SIZE / 6,
    }[scene.shape]
    image[down : down + _SIZE, across : across + _SIZE][is_inside] = _RGB[scene.colour]
    return image


@functools.cache
def _video(scene: int, ending: str) -> bytes:
    codec = _CODECS.get(ending, "libx264")
    file = io.BytesIO()
    formats = {".mkv": "matroska"}
    with av.open(file, "w", format=formats.get(ending, ending[1:].lower())) as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(SCENES[scene].seconds * FPS):
            image = _frame(SCENES[scene], number / FPS)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


@functools.cache
def picture(scene: int) -> bytes:
    """Returns the middle of a scene as a PNG image."""
    file = io.BytesIO()
    Image.fromarray(_frame(SCENES[scene], SCENES[scene].seconds / 2)).save(file, "png")
    return file.getvalue()


def write_frames(path: Path, scene: int, fps: int = 3) -> None:
    """Writes a scene as a folder of JPEG images at a rate, 00001.jpg and so on."""
    path.mkdir(parents=True)
    for number in range(SCENES[scene].seconds * fps):
        image = Image.fromarray(_frame(SCENES[scene], number / fps))
        image.save(path / f"{number + 1:05}.jpg")


def write(path: Path, scene: int) -> None:
    """Writes a scene as a video of the container that the ending names, or as a PNG image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(scene) if path.suffix == ".png" else _video(scene, path.suffix))
