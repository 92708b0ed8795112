"""orient.py MODEL: turns the crops that are upside down."""

from __future__ import annotations

import sys

import page


def main() -> None:
    session = page.session(sys.argv[1])
    for crops in page.receive():
        turned = []
        for crop in crops:
            upright, upside_down = session.run(None, {"x": page.batch(page.resize(crop, 48, 192))})[0][0]
            turned.append(crop[::-1, ::-1] if upside_down > upright else crop)
        page.send(turned)


main()
