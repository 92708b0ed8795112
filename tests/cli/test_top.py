"""`trims top`: what it shows, how it answers keys, what it leaves of the terminal."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pexpect
import pyte
import pytest
from helpers import cli
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from trims.disk.store import Store
from trims_cli.top_sample import Sample
from trims_cli.top_screen import keys
from trims_cli.top_state import COLUMNS, Action, State, press, visible
from trims_cli.top_view import fitting, frame, split

PLACE = {
    "place": "host",
    "budget": 1000,
    "used": 700,
    "pinned": 100,
    "leased": 200,
    "idle": 300,
    "spare": 100,
    "reserved": 0,
    "free": 300,
}


def row(model: str, **fields: Any) -> dict[str, Any]:
    usual = {
        "model": model, "id": "0" * 64, "variant": "raw", "place": "host", "nbytes": 1000, "state": "resident",
        "done": 1000, "pid": 7, "uid": 1, "user": "ann", "job": None, "since": "2026-01-01T00:00:00Z", "age": 3.0,
        "ttl": None, "pins": 0, "hits": 2, "used": "2026-01-01T00:00:00Z", "load_seconds": 0.5,
        "command": "python", "pss": 5000,
    }  # fmt: skip
    return {**usual, **fields}


ROWS = (
    row("b:latest", nbytes=3000),
    row("a:latest", pid=None, user=None, command=None, pss=None),
    row("c:v1", job="12_3"),
)
START = State()
SAMPLE = Sample(1.0, 42, 0, "0.1.0", "/s", (PLACE,), ROWS, {"attaches_per_s": 12.5, "hit_ratio": 0.5})


def drawn(state: State, sample: Sample, width: int = 160, height: int = 20) -> list[str]:
    """The lines of a frame."""
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(frame(state, sample, width, height))
    return console.file.getvalue().split("\n")[:-1]  # type: ignore[attr-defined]


def typed(text: str, state: State = START, rows: tuple[dict[str, Any], ...] = ROWS) -> tuple[State, list[Action]]:
    """The state after these keys, and what was to be done."""
    done = []
    for key in keys(text):
        state, action = press(state, key, visible(state, rows))
        done += [action] if action else []
    return state, done


def test_the_frame() -> None:
    lines = drawn(State(ascii=True), SAMPLE)
    assert "manager 0.1.0, process 42" in lines[0]
    assert lines[1].startswith("host         [PPP") and "###" in lines[1] and "iii" in lines[1]
    assert "attaches 12/s" in lines[2] and "hits 50%" in lines[2]
    assert [line.split()[0] for line in lines[5:8]] == [">a:latest", "b:latest", "c:v1"] or "> a:latest" not in lines[5]
    assert any("12_3" in line for line in lines)


@given(
    st.integers(1, 300),
    st.integers(1, 80),
    st.sampled_from(["list", "help", "confirm", "search", "details"]),
    st.booleans(),
)
def test_a_frame_never_outgrows_the_terminal(width: int, height: int, mode: str, plain: bool) -> None:
    state = State(mode=mode, ascii=plain, cursor=2, details=("a long line " * 9,) * 50)
    lines = drawn(state, SAMPLE, width, height)
    assert len(lines) <= height
    assert all(len(line) <= max(width, 9) for line in lines)


@given(
    st.dictionaries(st.sampled_from(["pinned", "leased", "idle", "spare", "reserved"]), st.integers(0, 10**12)),
    st.integers(4, 300),
)
def test_the_bar_adds_up(parts: dict[str, int], room: int) -> None:
    place = {**dict.fromkeys(["pinned", "leased", "idle", "spare", "reserved"], 0), **parts}
    used = sum(place.values())
    cells = split({**place, "budget": max(1, used), "used": used}, room)
    assert sum(cells) == room and all(n >= 0 for n in cells)


def gpu(number: int, **fields: Any) -> dict[str, Any]:
    return {**PLACE, "place": f"gpu:GPU-{number:08x}-0000-4000-8000-{number:012x}", **fields}


def test_gpus_have_bars_with_what_others_use() -> None:
    places = (PLACE, gpu(0x7A1E0B5C, idle=0, reserved=300))
    lines = drawn(State(ascii=True), replace(SAMPLE, places=places, rows=(row("a:latest", place=places[1]["place"]),)))
    assert lines[2].startswith("gpu:7a1e0b5c [PPP") and "ooo" in lines[2] and "ooo" not in lines[1]
    assert any(" gpu:7a1e0b5c " in line for line in lines[5:]) and not any("GPU-" in line for line in lines)


@pytest.mark.parametrize("height", [10, 24])
def test_many_gpus_leave_room_for_the_rows(height: int) -> None:
    places = (PLACE, *(gpu(n) for n in range(16)))
    lines = drawn(State(ascii=True), replace(SAMPLE, places=places, last_eviction=None), 40, height)
    assert len(lines) == height and any("b:latest" in line for line in lines)
    bars = [line for line in lines if "[P" in line]
    assert 2 <= len(bars) <= height // 3 and bars[0].startswith("host")
    assert bars[-1].startswith(f"{17 - len(bars) + 1} others")


def test_what_has_no_bar_of_its_own_is_summed() -> None:
    places = (PLACE, *(gpu(n) for n in range(4)))
    assert list(fitting(places, 5)) == list(places)
    *own, others = fitting(places, 3)
    assert own == list(places[:2]) and others["place"] == "3 others"
    assert (others["budget"], others["used"], others["idle"], others["free"]) == (3000, 2100, 900, 900)


def test_searching_for_a_gpu() -> None:
    rows = (row("a:latest"), row("b:latest", place=gpu(0x7A1E0B5C)["place"]))
    for word in ("gpu:7a", "gpu:GPU-7a"):
        assert [r["model"] for r in visible(State(search=word), rows)] == ["b:latest"]


def test_no_manager() -> None:
    assert "waiting" in drawn(State(), Sample(1.0))[0]


def test_moving_sorting_searching() -> None:
    assert typed("jj")[0].cursor == 2 and typed("jjjjk")[0].cursor == 1 and typed("\x1b[B\x1b[A")[0].cursor == 0
    assert typed(">")[0].sort == 1 and typed("<")[0].sort == len(COLUMNS) - 1 and typed("I")[0].reverse
    by_size = next(at for at, column in enumerate(COLUMNS) if column.name == "SIZE")
    names = [r["model"] for r in visible(State(sort=by_size, reverse=True), ROWS)]
    assert names[0] == "b:latest"
    by_pid = next(at for at, column in enumerate(COLUMNS) if column.name == "PID")
    assert visible(State(sort=by_pid), ROWS)[-1]["pid"] is None  # what is not known comes last, either way round
    assert visible(State(sort=by_pid, reverse=True), ROWS)[-1]["pid"] is None
    state, _ = typed("/c:v\r")
    assert state.mode == "list" and [r["model"] for r in visible(state, ROWS)] == ["c:v1"]
    assert typed("/x\x7f\x1b")[0].search == "" and typed("Z")[0].paused and typed("+")[0].interval > State().interval
    assert typed("?")[0].mode == "help" and typed("?q") == (replace(State(), mode="list"), [])
    assert typed("q")[1] == [Action("quit")]


def test_details_of_the_model_under_the_cursor() -> None:
    state, done = typed("j\r")
    assert done == [Action("details", "b:latest", "host", "0" * 64)] and state.mode == "details"
    lines = [f"line {n}" for n in range(30)]
    shown = "\n".join(drawn(replace(state, details=tuple(lines)), SAMPLE))
    assert "line 1\n" in shown and "line 29" in shown and "line 2\n" not in shown  # what it is, and the newest
    assert "any key leaves the details" in shown
    back, done = typed("x", state)
    assert (back.mode, back.details, done) == ("list", (), [])
    assert typed("\r", rows=()) == (START, [])


def test_the_last_that_went_is_shown_with_its_reason() -> None:
    gone = {"time": "2026-01-01T00:00:00Z", "name": "z:latest", "reason": "room for a:latest; lru, 1 of 2"}
    shown = drawn(State(), replace(SAMPLE, last_eviction=gone))
    assert any(line.startswith("last gone: z:latest ") and "lru, 1 of 2" in line for line in shown)


def test_evicting_asks_first() -> None:
    assert typed("e")[0].mode == "confirm" and typed("e")[1] == []
    assert typed("ey")[1] == [Action("evict", "a:latest", "host")]
    state, done = typed("en")
    assert done == [] and state.message
    assert typed("jp")[1] == [Action("pin", "b:latest", "host")]
    assert typed("pPe", State(readonly=True))[1] == [] and typed("e", State(readonly=True))[0].mode == "list"
    assert typed("p", rows=())[1] == []


@given(st.text(max_size=20))
def test_any_bytes_are_keys(text: str) -> None:
    state, _ = typed(text)
    assert 0 <= state.cursor < len(ROWS) and 0 <= state.sort < len(COLUMNS)


class Terminal:
    """`trims` on a terminal that is looked at."""

    def __init__(self, *words: str, rows: int = 24, columns: int = 120) -> None:
        env = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        self.child = pexpect.spawn(
            sys.executable, [*cli.TRIMS[1:], *words], env=env, dimensions=(rows, columns), timeout=60, encoding="utf-8"
        )
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.Stream(self.screen)
        self.raw = ""

    def until(self, text: str) -> str:
        """Read until the screen shows `text`; gives the screen."""
        while text not in (shown := "\n".join(self.screen.display)):
            try:
                part = self.child.read_nonblocking(1 << 16, timeout=60)
            except pexpect.EOF:
                pytest.fail(f"it ended without showing {text!r}:\n{shown}")
            self.raw += part
            self.stream.feed(part)
        return shown

    def end(self) -> None:
        """Read to the end, which must be that of the alternate screen."""
        self.raw += self.child.read()
        self.child.wait()
        assert self.raw.count("\x1b[?1049h") == self.raw.count("\x1b[?1049l")


@pytest.fixture
def running(store: Store) -> Iterator[Store]:
    cli.ok("start", "--host-budget", "1MiB", env={"TRIMS_SPARE": "0"})
    cli.ok("warm", "alpha", "beta")
    yield store
    cli.run("stop", "--now")


def test_the_screen(running: Store) -> None:
    top = Terminal("top", "--interval", "100ms")
    try:
        shown = top.until("q quit")
        assert "alpha:latest" in shown and "beta:latest" in shown and "host" in shown
        top.child.send("jp")
        top.until("pin beta:latest")
        top.child.send("P")
        top.until("unpin beta:latest")
        top.child.send("\r")
        shown = top.until("any key leaves the details")
        assert "trims top" in shown and "pinned" in shown and "unpinned" in shown and "asked by pid" in shown
        top.child.send("xe")
        top.until("y/N")
        top.child.send("y")
        top.until("evict beta:latest: evicted")
        assert [item["model"] for item in cli.items("ps")] == ["alpha:latest"]
        top.child.setwinsize(12, 60)
        top.screen.resize(12, 60)
        top.child.send("?")
        top.until("any key leaves this help")
        cli.ok("stop", "--now")
        top.child.send("j")
        top.until("waiting for one")
        cli.ok("start")
        top.until("process")
        top.child.send("q")
        top.end()
        assert top.child.exitstatus == 0
    finally:
        top.child.close(force=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gives_the_terminal_back(running: Store, number: int) -> None:
    top = Terminal("top")
    try:
        top.until("alpha:latest")
        top.child.kill(number)
        top.end()
        assert top.child.signalstatus == number
    finally:
        top.child.close(force=True)


def test_stopping_gives_the_terminal_back(running: Store) -> None:
    top = Terminal("top")
    try:
        top.until("alpha:latest")
        top.child.kill(signal.SIGTSTP)
        os.waitpid(top.child.pid, os.WUNTRACED)
        while "\x1b[?1049l" not in top.raw:
            top.raw += top.child.read_nonblocking(1 << 16, timeout=60)
        top.child.kill(signal.SIGCONT)
        top.child.send("q")
        top.end()
    finally:
        top.child.close(force=True)


def test_off_a_terminal_it_is_one_frame(running: Store) -> None:
    lines = cli.ok("top").splitlines()
    assert lines[0].startswith("manager ") and any(line.startswith("alpha:latest ") for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_json_lines(running: Store) -> None:
    ticks = [json.loads(line) for line in cli.ok("top", "--json", "--count", "2", "--interval", "50ms").splitlines()]
    assert [tick["schema"] for tick in ticks] == ["trims.top/1"] * 2
    assert ticks[0]["rates"]["attaches_per_s"] is None and ticks[1]["rates"]["attaches_per_s"] == 0.0
    assert [item["model"] for item in ticks[0]["items"]] == ["alpha:latest", "beta:latest"]


def test_without_a_manager(store: Store, tmp_path: Path) -> None:
    assert "--wait" in cli.fails(3, "top")
    assert cli.error(cli.run("top", "--json", "--once"))["code"] == "not-running"
    assert cli.ok("top", "--wait") == "no manager is running\n"
    assert json.loads(cli.ok("top", "--json", "--once", "--wait"))["state"] == "absent"
    assert "columns are" in cli.fails(2, "top", "--sort", "nope")
