"""What a stage found, as one JSON file that is whole at every moment: an item's outcome is there once it is done."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

SCHEMA = "trims.gpu-check/1"
Document = dict[str, Any]


def begin(stage: str, facts: dict[str, Any], notes: list[str]) -> Document:
    """An empty document. facts: {"device", "machine"}."""
    return {
        "schema": SCHEMA, "stage": stage, "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "simulated": facts["device"]["simulated"], **facts, "notes": notes, "complete": False, "items": {},
    }  # fmt: skip


def read(path: Path, facts: dict[str, Any]) -> Document | None:
    """The document to go on with, or None. Raises SystemExit when the file is something that must not be replaced."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise SystemExit(f"gpu-check: {path} is no result of this script; name another --out")
    if any(found["device"].get(key) != facts["device"].get(key) for key in ("name", "driver", "simulated")):
        raise SystemExit(f"gpu-check: {path} is of another device ({found['device']['name']}); name another --out")
    return found


def write(path: Path, document: Document) -> None:
    """Keep it: the file is the old one or the new one, whatever happens."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    temporary.rename(path)
