"""detect.py MODEL: draws each line of its input as a page, every second one upside down; cuts out the text."""

from __future__ import annotations

import sys

import numpy as np
import page


def crops(heat: np.ndarray, image: np.ndarray) -> list[np.ndarray]:
    """The parts of the image where the model sees lines of text; it sees only their core."""
    seen = np.pad((heat > 0.3).any(axis=1).astype(int), 1)
    found = []
    for top, bottom in zip(np.flatnonzero(np.diff(seen) == 1), np.flatnonzero(np.diff(seen) == -1), strict=True):
        columns = np.flatnonzero((heat[top:bottom] > 0.3).any(axis=0))
        edge = (bottom - top) // 2 + 1
        across = slice(max(0, columns[0] - edge), columns[-1] + 1 + edge)
        found.append(image[max(0, top - edge) : bottom + edge, across])
    return found


def main() -> None:
    session = page.session(sys.argv[1])
    for number, text in enumerate(sys.stdin):
        image = page.draw(text.strip(), upside_down=number % 2 == 1)
        heat = session.run(None, {"x": page.batch(image)})[0][0, 0]
        page.send(crops(heat, image))


main()
