"""classify.py MODEL: prints the class of each page's crops, as a network for 224 x 224 images numbers it."""

from __future__ import annotations

import sys

import page


def main() -> None:
    session = page.session(sys.argv[1])
    name = session.get_inputs()[0].name
    for crops in page.receive():
        scores = [session.run(None, {name: page.batch(page.resize(crop, 224, 224))})[0].ravel() for crop in crops]
        print(" | ".join(f"class {score.argmax()} ({score.max():.7g})" for score in scores), flush=True)


main()
