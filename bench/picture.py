"""A picture of `trims top`: the real program in a terminal of our own, over real models held by real processes.

The terminal is pyte's, fed by pexpect; what its screen holds in the end is drawn as SVG by rich.
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pyte
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from bench import zoo
from bench.world import ROOT, TRIMS, World

WIDTH, HEIGHT, SECONDS = 118, 17, 5.0
TARGET = ROOT / "docs" / "pictures" / "top.svg"
HOLDER = """
import sys, trims
held = [trims.open(name).tensors() for name in sys.argv[1:]]
print(flush=True)
sys.stdin.read()
"""


def holders(world: World, *uses: list[str]) -> list[subprocess.Popen[bytes]]:
    """Processes that hold models open, started and ready."""
    made = []
    for names in uses:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, *names], env=world.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        made.append(process)
    return made


def screen(world: World) -> pyte.Screen:
    """What `trims top` shows after a few seconds."""
    shown = pyte.Screen(WIDTH, HEIGHT)
    stream = pyte.ByteStream(shown)
    env = {**world.env, "TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}
    child = pexpect.spawn(TRIMS, ["top", "--interval", "1s"], env=env, dimensions=(HEIGHT, WIDTH))
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        try:
            stream.feed(child.read_nonblocking(1 << 16, timeout=0.2))
        except pexpect.TIMEOUT:
            continue
    child.send("q")
    child.expect(pexpect.EOF)
    child.close()
    return shown


def colour(name: str) -> Color | None:
    """pyte's name of a colour as rich's."""
    if name == "default":
        return None
    if len(name) == 6 and all(c in "0123456789abcdefABCDEF" for c in name):
        return Color.parse(f"#{name}")
    bright = name.startswith("bright")
    plain = {"brown": "yellow"}.get(name.removeprefix("bright"), name.removeprefix("bright"))
    return Color.parse(f"bright_{plain}" if bright else plain)


def svg(shown: pyte.Screen) -> str:
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for row in range(HEIGHT):
        line = Text()
        for column in range(WIDTH):
            cell = shown.buffer[row][column]
            style = Style(
                color=colour(cell.fg), bgcolor=colour(cell.bg), bold=cell.bold, reverse=cell.reverse, dim=False
            )
            line.append(cell.data, style)
        console.print(line, overflow="crop", no_wrap=True)
    return console.export_svg(title="trims top")


def main() -> int:
    packages = zoo.packaged()
    files = {
        "resnet50": zoo.built("resnet50"),
        "magika": packages["magika"] / "model.onnx",
        "silero-vad": packages["silero-vad"] / "silero_vad_op18_ifless.onnx",
        "ocr-rec": packages["rapidocr-onnxruntime"] / "ch_PP-OCRv4_rec_infer.onnx",
    }
    with World("512MiB") as world:
        world.trims("init")
        for name, path in files.items():
            world.trims("import", str(path), "--name", name, "--no-variant")
        world.start()
        world.trims("warm", "--for", "raw", "resnet50", "magika", "silero-vad")
        world.trims("pin", "ocr-rec", "--for", "2h", "--reason", "front desk")
        running = holders(world, ["resnet50"], ["resnet50", "magika"], ["magika"])
        try:
            text = svg(screen(world))
        finally:
            for process in running:
                process.communicate()
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(text, encoding="utf-8")
    print(Path(TARGET).relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
