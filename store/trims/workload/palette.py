"""The colours of a ratio: blue where sharing wins, orange where it loses, pale where neither does, on a log scale.

Equal factors get equal distances: 2x lies as far from 1x as 0.5x does. Orange against blue is told apart with every
common colour vision deficiency, and both ends are dark enough that lightness alone tells how far from 1x a value is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

RGB = tuple[int, int, int]
# Orange to blue. Lightness falls towards both ends.
ANCHORS: tuple[RGB, ...] = ((140, 60, 0), (235, 150, 60), (245, 243, 238), (110, 165, 220), (8, 60, 120))
_DARK, _LIGHT = (0, 0, 0), (255, 255, 255)  # one of the two has a contrast of 4.58 or more with any colour


def reach(values: Iterable[float]) -> float:
    """The factor at the ends of the scale: the largest distance from 1x among `values`, at least 2."""
    logs = [abs(math.log(value)) for value in values if value > 0 and math.isfinite(value)]
    return max(2.0, math.exp(max(logs, default=0.0)))


def position(value: float, most: float) -> float:
    """Where a ratio lies: 0.0 at 1/most or below, 0.5 at 1, 1.0 at `most` or above."""
    if value <= 0:
        return 0.0
    return min(1.0, max(0.0, 0.5 + 0.5 * math.log(value) / math.log(most)))


def colour(at: float) -> RGB:
    """The colour at a position, straight between anchors."""
    scaled = at * (len(ANCHORS) - 1)
    left = min(int(scaled), len(ANCHORS) - 2)
    part = scaled - left
    low, high = ANCHORS[left], ANCHORS[left + 1]
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(low, high, strict=True))
    return red, green, blue


def ink(background: RGB) -> RGB:
    """Dark or light, whichever has more contrast on `background` by WCAG 2's formula."""
    luminance = _luminance(background)
    on_dark = (_luminance(_LIGHT) + 0.05) / (luminance + 0.05)
    on_light = (luminance + 0.05) / (_luminance(_DARK) + 0.05)
    return _LIGHT if on_dark > on_light else _DARK


def _luminance(colour: RGB) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
