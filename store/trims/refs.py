"""Refs: movable names for models, `name[:tag]`, and `id:PREFIX`, which names a digest.

The grammar is narrow on purpose: a ref is a word of a shell, a line of a list, a cell of a table and a file name, and
must be none the worse in any of them.
"""

from __future__ import annotations

from trims.errors import UsageError

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_TAG = "latest"
MAX_NAME = 150
MAX_TAG = 64
MIN_PREFIX = 6
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME = _LETTERS | frozenset("._-+@/")
_TAG = _LETTERS | frozenset("._-+@")
_HEX = frozenset("0123456789abcdef")
_TRIES = 10_000  # words compared in search of the one that was meant


def parse_ref(text: str) -> str:
    """The canonical ref, always with its tag: `resnet50` → `resnet50:latest`. Raises UsageError.

    A name is letters, digits and `._-+@/`, starts with a letter or digit, has no empty, `.` or `..` part, and is at
    most 150 characters, a slash counted as three; a tag is the same without `/`, at most 64. `id` is no name: `id:`
    introduces a digest.
    """
    name, colon, tag = text.partition(":")
    if not colon:
        tag = DEFAULT_TAG
    problem = _name_problem(name) or _tag_problem(tag)
    if problem:
        hint = "use letters, digits and ._-+@/, like resnet50 or org/resnet50:v2"
        raise UsageError(f"bad model name {_quoted(text)}", problem, hint)
    return f"{name}:{tag}"


def _quoted(text: str) -> str:
    """`text` for a message that stays a line: its beginning, when it is absurdly long."""
    return repr(text if len(text) <= 200 else text[:200] + "...")


def _name_problem(name: str) -> str:
    if not name:
        return "it is empty"
    if name == "id":
        return "`id:` introduces a digest"
    if len(name) + 2 * name.count("/") > MAX_NAME:  # a slash takes three characters of a file name of at most 255
        return f"it is longer than {MAX_NAME} characters, a slash counted as three"
    if not set(name) <= _NAME:
        return "it has a character that names cannot have"
    if name[0] not in _LETTERS:
        return "it does not start with a letter or digit"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "a part of it is empty, `.` or `..`"
    return ""


def _tag_problem(tag: str) -> str:
    if not tag:
        return "its tag is empty"
    if len(tag) > MAX_TAG:
        return f"its tag is longer than {MAX_TAG} characters"
    if not set(tag) <= _TAG or tag[0] not in _LETTERS:
        return "its tag has a character that tags cannot have"
    return ""


def digest_prefix(text: str) -> str | None:
    """The prefix of `id:PREFIX`, or None when `text` is not of that form. Raises UsageError for a bad prefix."""
    if not text.startswith("id:"):
        return None
    prefix = text[3:].lower()
    if len(prefix) < MIN_PREFIX or len(prefix) > 64 or not set(prefix) <= _HEX:
        problem = f"it takes {MIN_PREFIX} to 64 hexadecimal digits"
        raise UsageError(f"bad digest {_quoted(text)}", problem, "see `trims ls`")
    return prefix


def name_from_path(path: str) -> str:
    """A name for a model file that was given none: its base name without suffixes, bad characters as `-`."""
    base = path.rstrip("/").rpartition("/")[2]
    for suffix in (
        ".index.json",
        ".safetensors",
        ".onnx",
        ".npz",
        ".npy",
        ".h5",
        ".hdf5",
        ".pt",
        ".pth",
        ".bin",
        ".ckpt",
    ):
        if base.lower().endswith(suffix) and len(base) > len(suffix):
            base = base[: -len(suffix)]
    name = "".join(c if c in _NAME and c != "/" else "-" for c in base).strip("._-+@")[:MAX_NAME]
    return name if name and name != "id" else "model"


def near(ref: str, refs: Iterable[str]) -> str:
    """`; did you mean X?` for the ref whose name is most like that of `ref`, or "".

    Alike: within two slips of the pen (one where the name is short), or one name begins the other. Names that cannot be
    are passed over by their letters alone, and no more than so many are compared, so that it costs no more than a
    tenth of a second or two in a store of 100,000.
    """
    name, _, tag = ref.partition(":")
    limit = 2 if len(name) > 4 else 1
    letters = set(name)
    best: tuple[int, bool, str] | None = None
    tries = 0
    for other in refs:
        known, _, its_tag = other.partition(":")
        begins = min(len(name), len(known)) > 2 and (known.startswith(name) or name.startswith(known))
        if not begins and (abs(len(known) - len(name)) > limit or len(letters.symmetric_difference(known)) > 2 * limit):
            continue
        tries += 1
        if tries > _TRIES:
            break
        slips = _slips(name, known)
        if slips <= limit or begins:
            rank = (slips, tag != its_tag, other)
            best = min(best, rank) if best else rank
    return f"; did you mean {best[2].removesuffix(':' + DEFAULT_TAG)}?" if best else ""


def _slips(a: str, b: str) -> int:
    """Letters to add, drop, change, or swap with a neighbour, to make one word of the other (Damerau's distance)."""
    while a and b and a[0] == b[0]:
        a, b = a[1:], b[1:]
    while a and b and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        two, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, two[j - 2] + 1)
            row.append(cost)
    return row[-1]
