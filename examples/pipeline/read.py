"""read.py MODEL: prints the text of each page, a line a page."""

from __future__ import annotations

import sys

import numpy as np
import page


def main() -> None:
    session = page.session(sys.argv[1])
    letters = ["", *session.get_modelmeta().custom_metadata_map["character"].splitlines(), " "]
    for crops in page.receive():
        texts = []
        for crop in crops:
            width = max(48, round(48 * crop.shape[1] / crop.shape[0]))
            best = session.run(None, {"x": page.batch(page.resize(crop, 48, width))})[0][0].argmax(axis=1)
            # A letter lasts for several steps, and a step without any (0) parts two that are the same.
            begins = (best != 0) & (best != np.append(0, best[:-1]))
            texts.append("".join(letters[i] for i in best[begins]))
        print(" | ".join(texts), flush=True)


main()
