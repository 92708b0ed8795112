"""Manual pages and how they look. A page is sections of blocks; one renderer writes roff, the other plain text.

Blocks: a paragraph; a list of (term, text) definitions; literal lines. In text, `words` in backquotes are bold.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

Definitions = list[tuple[str, str]]


class Literal(list[str]):
    """Lines that stand as they are: examples."""


Block = str | Definitions | Literal
_WIDTH = 78


class Page:
    """One manual page."""

    def __init__(self, name: str, section: int, summary: str) -> None:
        self.name, self.section, self.summary = name, section, summary
        self.sections: list[tuple[str, list[Block]]] = []

    def add(self, title: str, *blocks: Block) -> None:
        """A section; one of the same title is continued."""
        for known, content in self.sections:
            if known == title:
                content.extend(blocks)
                return
        self.sections.append((title, list(blocks)))


def parse_prose(text: str) -> list[tuple[str, list[Block]]]:
    """Hand-written prose: `# TITLE` lines, paragraphs apart by empty lines, four spaces for what is literal.

    `term :: text` paragraphs are definitions; neighbours make one list. What comes before a title goes to DESCRIPTION.
    """
    sections: list[tuple[str, list[Block]]] = []
    title, blocks = "DESCRIPTION", list[Block]()
    for part in re.split(r"\n[ \t]*\n", text.strip("\n")):
        if part.startswith("# "):
            if blocks:
                sections.append((title, blocks))
            head, _, part = part.partition("\n")
            title, blocks = head[2:].strip(), []
        if part.startswith("    "):
            blocks.append(Literal(line[4:] for line in part.splitlines()))
        elif " :: " in part:
            term, _, meaning = part.partition(" :: ")
            if not blocks or not isinstance(blocks[-1], list) or isinstance(blocks[-1], Literal):
                blocks.append([])
            blocks[-1].append((term.strip(), " ".join(meaning.split())))  # type: ignore[union-attr, arg-type]
        elif part.strip():
            blocks.append(" ".join(part.split()))
    return [*sections, (title, blocks)] if blocks else sections


def to_text(page: Page) -> str:
    """The page for a terminal or a pipe."""
    lines: list[str] = []
    for title, blocks in page.sections:
        lines += [title]
        for block in blocks:
            lines += [*_text_block(block), ""]
    return "\n".join(lines).rstrip() + "\n"


def _text_block(block: Block) -> list[str]:
    if isinstance(block, Literal):
        return ["        " + line for line in block]
    if isinstance(block, str):
        return _wrapped(block, 4)
    lines: list[str] = []
    for term, meaning in block:
        lines += ["    " + _plain(term), *_wrapped(meaning, 8)]
    return lines


def _wrapped(text: str, indent: int) -> list[str]:
    space = " " * indent
    return textwrap.wrap(_plain(text), _WIDTH, initial_indent=space, subsequent_indent=space, break_on_hyphens=False)


def _plain(text: str) -> str:
    return text.replace("`", "")


def to_roff(page: Page, version: str) -> str:
    """The page for man(1). It carries no date, so that the same sources give the same bytes."""
    lines = [f'.TH "{page.name.upper()}" "{page.section}" "" "trims {version}" "trims manual"', ".nh", ".ad l"]
    for title, blocks in page.sections:
        lines.append(f'.SH "{title}"')
        first = True
        for block in blocks:
            lines += _roff_block(block, first)
            first = False
    return "\n".join(lines) + "\n"


def _roff_block(block: Block, first: bool) -> list[str]:
    if isinstance(block, Literal):
        return [*([] if first else [".PP"]), ".RS 4", ".nf", *(_roff(line) for line in block), ".fi", ".RE"]
    if isinstance(block, str):
        return [*([] if first else [".PP"]), _marked(block)]
    lines = []
    for term, meaning in block:
        lines += [".TP", _bold(term), _marked(meaning) or r"\&"]
    return lines


def _bold(term: str) -> str:
    return r"\fB" + _roff(term.replace("`", "")).lstrip("\\&") + r"\fR"


def _marked(text: str) -> str:
    parts = text.split("`")
    marked = "".join(r"\fB" + _escape(part) + r"\fR" if at % 2 else _escape(part) for at, part in enumerate(parts))
    return _guarded(marked)


def _roff(line: str) -> str:
    return _guarded(_escape(line))


def _escape(text: str) -> str:
    return text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("…", "...")


def _guarded(line: str) -> str:
    """A line must not begin like a request."""
    return r"\&" + line if line[:1] in (".", "'") else line


def join(words: Iterable[str]) -> str:
    return " ".join(words)
