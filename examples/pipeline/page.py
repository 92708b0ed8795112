"""What the three stages share: pages to read, crops on their way, and a session. No trims anywhere."""

from __future__ import annotations

import os
import pickle
import sys
import time

import numpy as np

# Five columns of seven dots a letter, the top dot the lowest bit.
_FONT = (
    "3E5149453E 00427F4000 4261514946 2141454B31 1814127F10 2745454539 3C4A494930 0171090503 3649494936 064949291E "
    "7E1111117E 7F49494936 3E41414122 7F4141221C 7F49494941 7F09090901 3E4149497A 7F0808087F 00417F4100 2040413F01 "
    "7F08142241 7F40404040 7F020C027F 7F0408107F 3E4141413E 7F09090906 3E4151215E 7F09192946 4649494931 01017F0101 "
    "3F4040403F 1F2040201F 3F4038403F 6314081463 0708700807 6151494543"
)
_GLYPHS = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", map(bytes.fromhex, _FONT.split()), strict=True))
_HEIGHT, _WIDTH, _DOT = 96, 480, 4


def draw(text: str, upside_down: bool) -> np.ndarray:
    """A page with one line of text on it: grey values from 0 to 1, height x width."""
    columns = b"".join(_GLYPHS.get(letter, bytes(3)) + bytes(1) for letter in text.upper())
    dots = np.pad((np.frombuffer(columns, np.uint8) >> np.arange(7)[:, None]) & 1, 1)
    ink = resize(dots, _DOT * dots.shape[0], _DOT * dots.shape[1])[:, : _WIDTH - 40]
    ink = np.clip(3 * ink - 1, 0, 1)  # dots that touch, also at a corner, become one stroke
    page = np.ones((_HEIGHT, _WIDTH), np.float32)
    page[32 : 32 + len(ink), 20 : 20 + ink.shape[1]] -= 0.9 * ink
    return page[::-1, ::-1] if upside_down else page


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image of another size, bilinear."""
    rows = np.clip((np.arange(height) + 0.5) * len(image) / height - 0.5, 0, len(image) - 1)
    columns = np.clip((np.arange(width) + 0.5) * image.shape[1] / width - 0.5, 0, image.shape[1] - 1)
    tall = np.stack([np.interp(columns, np.arange(image.shape[1]), row) for row in image])
    below = np.minimum(rows.astype(int) + 1, len(image) - 1)
    part = (rows - rows.astype(int))[:, None]
    return tall[rows.astype(int)] * (1 - part) + tall[below] * part


def batch(image: np.ndarray) -> np.ndarray:
    """What the models take: 1 x 3 x height x width, from -1 to 1."""
    return np.repeat((image[None, None] - 0.5) / 0.5, 3, axis=1).astype(np.float32)


def session(path: str):
    """A session over the model file, as any program makes one; says who made it and how long that took."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    begun = time.perf_counter()
    made = onnxruntime.InferenceSession(path, options)
    stage = os.path.basename(sys.argv[0]).removesuffix(".py")
    print(f"{stage}: process {os.getpid()}, session in {1e3 * (time.perf_counter() - begun):.1f} ms", file=sys.stderr)
    return made


def send(crops: list[np.ndarray]) -> None:
    """Give the crops of one page to the next stage."""
    pickle.dump(crops, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def receive():
    """The crops of each page that the stage before sends, until it ends."""
    while True:
        try:
            yield pickle.load(sys.stdin.buffer)
        except EOFError:
            return
