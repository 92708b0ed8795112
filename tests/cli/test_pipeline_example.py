"""examples/pipeline runs as its page says."""

import subprocess
import sys
from pathlib import Path

from helpers import capabilities

EXAMPLE = Path(__file__).parents[2] / "examples" / "pipeline"
PACKAGE = "rapidocr-onnxruntime-1.4.4"


@capabilities.needs_onnxruntime
@capabilities.needs_real_models
def test_native_and_shared_answer_the_same(real_models: Path) -> None:
    words = [sys.executable, EXAMPLE / "compare.py", real_models / PACKAGE]
    small = ["--pipelines", "1", "--rounds", "1", "--pages", "3"]
    done = subprocess.run([*words, *small], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split(",")[0].strip() for line in lines[2:8]] == [
        "first answer", "session of detect", "session of orient", "session of read", "a page", "memory of all",
    ]  # fmt: skip
    assert lines[8].startswith("the same answers from all: yes: PIPELINE, ") and len(lines) == 9


def test_models_that_are_not_there(home: Path) -> None:
    done = subprocess.run([sys.executable, EXAMPLE / "compare.py", home], capture_output=True, text=True)
    assert done.returncode == 2 and "there is no" in done.stderr.splitlines()[-1] and done.stdout == ""
