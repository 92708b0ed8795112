"""scripts/gpu-check: each stage over simulated GPUs, what it leaves out or goes on with, a machine without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench import gpu_doc
from bench.gpu import kept, running, stages, wheels, words
from bench.gpu.place import Place, choose

ROOT = Path(__file__).resolve().parents[2]
DEVICE = {"name": "Some GPU", "uuid": "GPU-1", "nbytes": 80 << 30, "used": 0, "simulated": False, "driver": "600.1",
          "cuda": "13.0", "notes": [], "reads_registered": True}  # fmt: skip


def check(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run what the script runs once it has its environment."""
    command = [sys.executable, "-m", "bench.gpu", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done


def result(out: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"{stage}.json").read_text())
    assert found["schema"] == kept.SCHEMA and found["simulated"]
    return found


def test_without_a_gpu_there_is_one_line_and_its_status(tmp_path: Path) -> None:
    env = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(["scripts/gpu-check"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (23, "")
    assert len(done.stderr.splitlines()) == 1 and "no GPU" in done.stderr and "--simulated" in done.stderr


@pytest.mark.parametrize(
    ("item", "question"),
    [("settle:outlives_exporter", "yes"), ("settle:write_by_copy", "yes"), ("settle:register_read_only", "yes")],
)
def test_questions_are_answered_with_evidence(home: Path, item: str, question: str) -> None:
    check("--simulated", item, "--out", home)
    found = result(home, "settle")["items"][item.partition(":")[2]]
    assert found["outcome"] == "done" and found["result"]["answer"] == question and len(found["result"]) > 3


@pytest.mark.parametrize(
    "item",
    ["tests:contract", "isolation:killed_manager", "isolation:demotion", "figures:model_middle", "figures:clients"],
)
def test_an_item_of_each_stage_is_done(home: Path, item: str) -> None:
    done = check("--simulated", item, "--out", home)
    stage, _, name = item.partition(":")
    document = result(home, stage)
    assert document["items"][name]["outcome"] == "done" and not document["complete"]
    rows = document["items"][name]["result"].get("rows", [])
    assert all(row["met"] is None for row in rows) and bool(rows) == (stage != "tests")
    summary = (home / "summary.txt").read_text()
    assert "SIMULATED" in summary and "INCOMPLETE" in summary and f"{stage}:{name}" in summary
    assert f"{stage}:{name}" in done.stdout and "no time was left" not in done.stdout
    assert (home / "tests.xml").exists() == (stage == "tests")


def test_the_papers_map_is_made_of_its_times_alone(home: Path) -> None:
    check("--simulated", "paper", "--out", home)
    document = result(home, "paper")
    assert document["complete"]
    alone, map_ = (document["items"][name]["result"] for name in ("alone", "figure_11"))
    assert len(alone["models"]) == 42 and {cell["clients"] for cell in map_["cells"]} == {1, 4}
    assert all(len(cell["seconds"]) == cell["requests"] and cell["cold"] > 0 for cell in map_["cells"])
    again = check("--simulated", "--out", home, "--within", "0")
    assert "paper: nothing is lacking" in again.stdout


def test_what_is_not_done_is_done_by_the_next_run(home: Path) -> None:
    check("--simulated", "settle:unusual", "--out", home)
    made = result(home, "settle")["items"]["unusual"]
    check("--simulated", "--out", home, "--within", "8")
    document = result(home, "settle")
    assert len(document["items"]) > 1 and document["items"]["unusual"] == made


def test_what_is_of_another_device_is_not_replaced(home: Path) -> None:
    facts = {"device": DEVICE, "machine": {}}
    kept.write(home / "settle.json", kept.begin("settle", facts, []))
    done = check("--simulated", "settle:unusual", "--out", home, code=1)
    assert done.stderr == f"gpu-check: {home}/settle.json is of another device (Some GPU); name another --out\n"
    (home / "settle.json").write_text("{}")
    assert "no result of this script" in check("--simulated", "settle:unusual", "--out", home, code=1).stderr
    assert "there is no nothing" in check("--simulated", "nothing", "--out", home, code=2).stderr


def place(home: Path) -> Place:
    device = {**DEVICE, "simulated": True}
    return choose(device, "", str(home), "/tmp")


def test_an_item_that_fails_or_is_late_costs_nothing_else(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = home / "troubled.py"
    module.write_text(
        "import os, subprocess, sys, time\n"
        "from bench.gpu.place import Failed, Skip\n"
        "def fails(place): raise Failed('no luck', {'seen': 1})\n"
        "def lacks(place): raise Skip('no such library')\n"
        "def dies(place): os._exit(7)\n"
        "def hangs(place):\n"
        "    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "    time.sleep(60)\n"
        "ITEMS = {f.__name__: f for f in (fails, lacks, dies, hangs)}\n"
    )
    site = home / "sitecustomize.py"
    site.write_text("import bench.gpu.stages as s; s.MODULES['settle'] = ('troubled',)\n"
                    "import sys, troubled; sys.modules['bench.gpu.troubled'] = troubled\n")  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", f"{home}:{ROOT}")
    running.adopt()
    found = {name: running.run("settle", name, place(home), 60.0) for name in ("fails", "lacks", "dies")}
    begun = time.monotonic()
    found["hangs"] = running.run("settle", "hangs", place(home), 3.0)
    assert time.monotonic() - begun < 20
    assert {name: one["outcome"] for name, one in found.items()} == {
        "fails": "failed", "lacks": "skipped", "dies": "failed", "hangs": "late",
    }  # fmt: skip
    assert found["fails"]["result"] == {"seen": 1} and found["fails"]["why"] == "Failed: no luck"
    assert found["lacks"]["why"] == "no such library" and "status 7" in found["dies"]["why"]
    assert all(name in line for name, one in found.items() for line in words.item("settle", name, one)[:1])


def test_models_are_smaller_where_there_is_no_room(home: Path) -> None:
    large = choose(DEVICE, "", str(home), "/tmp")
    small = choose({**DEVICE, "nbytes": 1 << 30}, "", str(home), "/tmp")
    assert small.large == small.middle == 256 << 20 and small.small == 100 << 20
    assert len(small.notes) == 2 and "instead of 15.0GiB" in small.notes[1]
    assert large.small == 100 << 20 and Place.read(str(_written(home, large))) == large


def _written(home: Path, made: Place) -> Path:
    path = home / "place.json"
    made.write(path)
    return path


def test_every_item_has_a_limit_below_its_stages(home: Path) -> None:
    for stage in stages.STAGES:
        for name, (_, seconds) in stages.items(stage).items():
            assert 0 < seconds < stages.STAGE_SECONDS, name
            assert callable(stages.find(stage, name))


class TestCommitting:
    @pytest.fixture(autouse=True)
    def elsewhere(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu_doc, "KEPT", home / "kept")
        monkeypatch.setattr(gpu_doc, "DOCUMENT", home / "gpu.md")
        (home / "gpu.md").write_text("<!-- figures: made by python -m bench.gpu_doc -->\n<!-- end of figures -->\n")

    def document(self, **device: object) -> dict[str, Any]:
        row = {"what": "attach", "trims": {"p50": 0.001, "p99": 0.002, "n": 5, "unit": "s"}, "beside": {}, "ratios": {},
               "target": "20 ms", "met": True}  # fmt: skip
        machine = {
            "cpu": "a CPU",
            "cores": 16,
            "memory": 1 << 37,
            "kernel": "6",
            "python": "3.12",
            "libraries": {"torch": "2"},
        }
        made = kept.begin("figures", {"device": {**DEVICE, **device}, "machine": machine}, ["a note"])
        made["items"] = {"attach": {"outcome": "done", "seconds": 1.0, "cut": False, "result": {"rows": [row]}},
                         "ipc": {"outcome": "skipped", "seconds": 1.0, "cut": False, "why": "no CuPy"}}  # fmt: skip
        return made

    def test_results_stand_in_the_document(self, home: Path) -> None:
        (home / "found").mkdir()
        kept.write(home / "found" / "figures.json", self.document())
        assert gpu_doc.table() == gpu_doc.NOTHING
        assert gpu_doc.commit(home / "found") == 0
        text = (home / "gpu.md").read_text()
        assert (gpu_doc.KEPT / "some-gpu" / "figures.json").exists()
        assert "### Some GPU" in text and "| attach | 1 ms |  | 20 ms: met |" in text
        assert "skipped: no CuPy" in text and "- a note" in text

    @pytest.mark.parametrize("device", [{"simulated": True}, {"name": "Stub"}])
    def test_what_is_no_gpu_is_never_taken_over(self, home: Path, device: dict[str, Any], capsys: Any) -> None:
        kept.write(home / "figures.json", self.document(**device))
        assert gpu_doc.commit(home) == 1
        assert "have no figures" in capsys.readouterr().err

    def test_nothing_is_nothing(self, home: Path, capsys: Any) -> None:
        assert gpu_doc.commit(home) == 1
        assert "no results" in capsys.readouterr().err


def test_an_environment_is_made_over_a_python_without_a_network(home: Path) -> None:
    made = home / "venv"
    command = [sys.executable, "-m", "bench.gpu.wheels", "make", str(made), "--wheels", str(home)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    used = {one["name"]: one for one in json.loads((made / wheels.LIST).read_text())}
    assert used["msgspec"]["where"] == "python" and used["msgspec"]["met"]
    (paths,) = made.glob("lib/*/site-packages/gpu-check.pth")
    assert paths.read_text().splitlines()[:2] == [str(ROOT / "store"), str(ROOT)]
    said = subprocess.run([made / "bin" / "trims", "--version"], capture_output=True, text=True, cwd=home, timeout=60)
    assert said.returncode == 0, said.stderr
