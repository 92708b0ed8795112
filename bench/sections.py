"""Sections of documents that are made from kept results, each between two comments that name it and its maker."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def fill(text: str, maker: str, made: Mapping[str, Callable[[], str]], name: str = "the document") -> str:
    """`text` with each section's content as `made` gives it. Raises SystemExit when `name` has no place for one."""
    for section, content in made.items():
        start, stop = f"<!-- {section}: made by python -m {maker} -->\n", f"<!-- end of {section} -->"
        head, begin, rest = text.partition(start)
        _, end, tail = rest.partition(stop)
        if not begin or not end:
            raise SystemExit(f"{name} has no place for {section!r}")
        text = f"{head}{begin}{content()}{end}{tail}"
    return text
