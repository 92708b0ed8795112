"""The commands about GPUs, against a real manager whose GPUs are simulated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import cli

import trims
from trims.client import connections
from trims.devices import simulated
from trims.disk.store import Store
from trims_cli import gpus

MIB = 1 << 20
TOTAL = 64 * MIB
FIRST, SECOND = (f"gpu:SIM-{n:08x}-0000-4000-8000-{n:012x}" for n in range(2))


@pytest.fixture
def there(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two GPUs, in a directory; the store has three models, no manager runs."""
    simulated.make(str(tmp_path / "gpus"), gpus=2, nbytes=TOTAL)
    monkeypatch.setenv("TRIMS_SIMULATED_GPUS", str(tmp_path / "gpus"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("TRIMS_SPARE", "0")
    return tmp_path / "gpus"


@pytest.fixture
def running(there: Path) -> Iterator[Path]:
    cli.ok("start", "--host-budget", "64MiB", "--gpu-budget", "16MiB", "--policy", "lru")
    yield there
    connections.close_idle()
    cli.run("stop", "--now")


def resident() -> list[tuple[str, str]]:
    """(model, place) of every residency."""
    return [(item["model"].removesuffix(":latest"), item["place"]) for item in cli.items("ps")]


class TestNaming:
    def test_a_number_is_one_in_the_callers_view(self, running: Path) -> None:
        assert cli.items("warm", "alpha", "--to", "gpu:1")[0]["place"] == SECOND
        seen = {"CUDA_VISIBLE_DEVICES": "1"}
        assert cli.items("warm", "beta", "--to", "gpu:0", env=seen)[0]["place"] == SECOND
        assert "this process sees one" in cli.fails(23, "warm", "beta", "--to", "gpu:1", env=seen)
        cli.ok("pin", "beta", "--on", "gpu:0", env={"CUDA_VISIBLE_DEVICES": "1,0"})
        cli.ok("wait", "beta", "--for", "warm", "--on", "gpu:0", env=seen, input="")
        assert resident() == [("alpha", SECOND), ("beta", SECOND)]

    def test_what_is_shown_is_understood(self, running: Path) -> None:
        cli.ok("warm", "alpha", "--to", "gpu:1")
        shown = cli.ok("ps", "--no-header", "--columns", "place").strip()
        assert shown == "gpu:00000001"
        for name in (shown, SECOND, SECOND[:20], SECOND.lower(), "gpu:00000001-0000"):
            assert cli.items("warm", "alpha", "--to", name)[0]["outcome"] == "already", name
        assert len(cli.items("ps", "--filter", f"place={shown}")) == 1
        assert len(cli.items("ps", "--filter", f"place!={shown}")) == 0
        assert [item["name"] for item in cli.items("ls", "--filter", f"resident={SECOND}")] == ["alpha:latest"]

    def test_any_gpu_is_where_the_model_is(self, running: Path) -> None:
        cli.ok("warm", "alpha", "--to", "gpu:1")
        assert cli.items("warm", "alpha", "--to", "gpu")[0]["outcome"] == "already"
        assert cli.items("pin", "alpha", "--on", "gpu")[0]["place"] == SECOND
        assert cli.items("wait", "alpha", "--for", "warm", "--on", "gpu")[0]["place"] == SECOND
        cli.ok("unpin", "alpha")
        assert cli.items("evict", "alpha", "--on", "gpu")[0]["outcome"] == "evicted"

    def test_what_is_no_place(self, running: Path) -> None:
        assert "several" in cli.fails(2, "warm", "alpha", "--to", "gpu:SIM-")
        assert FIRST in cli.fails(23, "warm", "alpha", "--to", "gpu:GPU-7a1e")
        assert SECOND in cli.fails(2, "evict", "--all", "--on", "gpu")
        assert "no GPU 2" in cli.fails(23, "evict", "alpha", "--on", "gpu:2")
        cli.fails(2, "warm", "alpha", "--to", "gpu:")

    def test_no_driver_for_a_number(self, store: Store, tmp_path: Path) -> None:
        line = cli.fails(23, "warm", "alpha", "--to", "gpu:0", env={"TRIMS_SIMULATED_GPUS": str(tmp_path)})
        assert "TRIMS_SIMULATED_GPUS" in line

    def test_a_manager_without_gpus_says_what_to_do(self, there: Path) -> None:
        cli.ok("start", "--gpu", "none")
        try:
            for place in ("gpu", "gpu:0", FIRST):
                line = cli.fails(23, "warm", "alpha", "--to", place)
                assert "started without GPUs" in line and "trims restart --gpu auto" in line
            status = cli.items("status", "-v")[0]
            assert status["gpus"] == [] and "started without GPUs" in status["left_out"][0]
        finally:
            cli.ok("stop")

    @pytest.mark.parametrize("named", [("--gpu-budget", "1GiB"), ("--gpu", "auto", "--gpu-budget", "1GiB")])
    def test_a_gpu_that_is_left_out_is_told_of(self, there: Path, named: tuple[str, ...]) -> None:
        started = cli.run("start", *named)
        try:
            assert started.returncode == 0 and started.stderr.count("no memory for models on gpu:SIM-") == 2
            assert "no memory" not in cli.run("start", *named).stderr
            for place in ("gpu", "gpu:1", "gpu:00000001"):
                line = cli.fails(23, "warm", "alpha", "--to", place)
                assert f"there is no memory for models on {FIRST if place == 'gpu' else SECOND}" in line
                assert line.count("(") == 1 and "--gpu-budget" in line and "trims restart" in line
            assert cli.ok("status", "-v").count("there is no memory for models on gpu:SIM-") == 2
        finally:
            cli.ok("stop")

    def test_that_there_are_none_is_told_to_who_asked(self, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        for flags, told in ((), 0), (("--gpu", "auto"), 1), (("--gpu-budget", "80%"), 1), (("--gpu", "none"), 0):
            started = cli.run("start", *flags)
            refused = cli.fails(23, "warm", "alpha", "--to", "gpu")
            cli.ok("restart")  # and is not repeated: what is kept is what is so by default
            cli.ok("stop")
            assert started.stderr.count("the driver shows no GPU") == told, flags
            assert ("the driver shows no GPU" in refused) == (flags != ("--gpu", "none"))

    def test_a_program_that_is_run_gets_host_memory(self, store: Store) -> None:
        assert "host memory only" in cli.fails(125, "exec", "--to", "gpu", "--", "true")

    def test_the_driver_is_looked_for_only_where_a_number_is_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRIMS_SIMULATED_GPUS", "/nowhere")
        for place in ("host", "gpu", SECOND, "gpu:7a1e0b5c", "gpu:12345678"):
            assert gpus.place(place) == place
        assert gpus.devices("auto") == "auto" and gpus.devices("SIM-0, SIM-1") == "SIM-0,SIM-1"
        with pytest.raises(trims.TrimsError):
            gpus.place("gpu:0")


class TestEvicting:
    def test_to_disk_it_is_only_given_up(self, running: Path) -> None:
        cli.ok("warm", "alpha", "--to", "gpu:0")
        assert "no model is resident on disk" in cli.fails(2, "warm", "alpha", "--to", "disk")
        assert cli.items("evict", "alpha", "--on", "gpu:0", "--to", "disk")[0]["outcome"] == "evicted"
        assert resident() == []

    def test_to_host_it_is_there_before_it_leaves(self, running: Path) -> None:
        cli.ok("warm", "alpha", "beta", "--to", "gpu:1")
        assert cli.items("evict", "alpha", "--to", "host")[0]["place"] == SECOND
        assert resident() == [("alpha", "host"), ("beta", SECOND)]
        cli.fails(2, "evict", "alpha", "--on", "host", "--to", "host")
        cli.fails(2, "evict", "beta", "--on", "gpu", "--to", "gpu:0")

    def test_by_a_rule_each_goes_by_name(self, running: Path) -> None:
        cli.ok("warm", "alpha", "beta", "gamma", "--to", "gpu:0")
        cli.ok("pin", "gamma", "--on", "gpu:0")
        plan = cli.items("evict", "--all", "--on", "gpu:0", "--to", "host", "-n")
        assert {item["outcome"] for item in plan} == {"would-evict"} and len(resident()) == 3
        done = cli.items("evict", "--all", "--on", "gpu:0", "--to", "host")
        assert sorted((item["name"], item["outcome"]) for item in done) == [
            ("alpha:latest", "evicted"), ("beta:latest", "evicted")
        ]  # fmt: skip
        assert resident() == [("alpha", "host"), ("beta", "host"), ("gamma", FIRST)]
        assert cli.ok("evict", "--idle", "0s", "--on", "gpu:0", "--to", "host") == "nothing to do\n"

    def test_until_so_much_is_free(self, running: Path) -> None:
        cli.ok("warm", "alpha", "beta", "--to", "gpu:0")
        (item,) = cli.items("evict", "--until-free", "14MiB", "--on", "gpu:0", "--to", "host")
        assert item["outcome"] == "evicted" and ("alpha", "host") in resident() and len(resident()) == 2
        cli.fails(20, "evict", "--until-free", "17MiB", "--on", "gpu:0", "--to", "host")

    def test_waiting_for_free_memory(self, running: Path) -> None:
        assert cli.items("wait", "--for", "free=16MiB", "--on", "gpu:0")[0]["place"] == FIRST
        cli.ok("warm", "alpha", "--to", "gpu:0")
        assert "2.0MiB" not in cli.fails(124, "wait", "--for", "free=16MiB", "--on", "gpu:0", "--timeout", "0s")


class TestStarting:
    @pytest.mark.parametrize(
        ("given", "env", "places"),
        [
            ("1", {}, [SECOND]), ("1,0", {}, [SECOND, FIRST]), ("0", {"CUDA_VISIBLE_DEVICES": "1"}, [SECOND]),
            (FIRST[4:], {}, [FIRST]), ("00000001", {"CUDA_VISIBLE_DEVICES": "1,0"}, [SECOND]),
            ("auto", {}, [FIRST, SECOND]), ("none", {}, []),
        ],
        ids=["number", "order", "view", "uuid", "as shown", "auto", "none"],
    )  # fmt: skip
    def test_a_list_of_gpus(self, there: Path, given: str, env: dict[str, str], places: list[str]) -> None:
        (item,) = cli.items("start", "--gpu", given, "--gpu-budget", "16MiB", env=env)
        try:
            assert [place for place in item["budgets"] if place != "host"] == places
            listed = ",".join(place[4:] for place in places)
            assert item["settings"]["gpu.devices"] == (given if given in ("auto", "none", "00000001") else listed)
            assert not any("GPUs" in difference["key"] for difference in item["differs"])
            assert cli.items("start", "--gpu", given, env=env)[0]["differs"] == []
        finally:
            cli.ok("stop")

    def test_what_a_manager_has_otherwise_is_said_and_restart_keeps_it(self, there: Path) -> None:
        cli.ok("start", "--gpu", "1", "--gpu-budget", "16MiB", "--demote-to", "host")
        try:
            words = ("start", "--gpu", "0", "--gpu-budget", "8MiB")
            done = cli.run(*words, "--json")
            (item,) = json.loads(done.stdout)["items"]
            assert [d["key"] for d in item["differs"]] == ["gpu.devices", "budget.gpu"]
            assert f"GPUs {SECOND[4:]} (asked: {FIRST[4:]})" in done.stderr and "--gpu-budget 8MiB" in done.stderr
            assert cli.items("start", env={"TRIMS_GPUS": "1"})[0]["differs"] == []  # the same GPU, as a number
            (item,) = cli.items("restart")
            assert item["settings"]["gpu.devices"] == SECOND[4:] and list(item["budgets"]) == ["host", SECOND]
            assert item["settings"]["residency.demote_to"] == "host"
            (item,) = cli.items("restart", "--gpu", "0", "--demote-to", "disk")
            assert list(item["budgets"]) == ["host", FIRST] and item["settings"]["budget.gpu"] == "16MiB"
            assert item["settings"]["residency.demote_to"] == "disk"
        finally:
            cli.ok("stop")

    def test_a_unit_names_gpus_by_uuid(self, there: Path) -> None:
        text = cli.ok("start", "--print-unit", "--gpu", "1", "--gpu-budget", "80%", "--demote-to", "host")
        assert f'--gpu {SECOND[4:]} --gpu-budget "80%%" --demote-to host' in text

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (2, ["--gpu", "auto,0"]), (2, ["--gpu", ","]), (2, ["--gpu", ""]), (23, ["--gpu", "2"]),
            (23, ["--gpu", "GPU-7a1e"]), (2, ["--gpu-budget", "lots"]), (2, ["--demote-to", "gpu"]),
            (20, ["--gpu-budget", "66MiB", "--gpu", "0"]),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
    )  # fmt: skip
    def test_bad_lists(self, there: Path, code: int, words: list[str]) -> None:
        cli.fails(code, "start", *words)
        assert cli.run("status").returncode == 3


class TestShowing:
    def test_a_gpu_is_shown_short_in_tables_and_whole_elsewhere(self, running: Path) -> None:
        cli.ok("warm", "alpha", "--to", "gpu:1")
        for words in (("ps",), ("ls",), ("status",), ("top", "--once"), ("df",), ("show", "alpha"), ("warm", "alpha",
                      "--to", "gpu"), ("warm", "beta", "--to", "gpu:1", "-n"), ("start",), ("show", "alpha",
                      "--history"), ("evict", "alpha", "-n", "--on", "gpu")):  # fmt: skip
            short = cli.ok(*words)
            assert "gpu:00000001" in short and SECOND not in short, words
            if words[0] != "df":
                assert SECOND in cli.ok(*words, "-v"), words
            assert SECOND in cli.ok(*words, "--json") and "gpu:00000001" not in cli.ok(*words, "--json"), words
        assert SECOND in cli.ok("ps", "--format", "tsv") and SECOND in cli.ok("ls", "--format", "tsv")

    def test_status_tells_what_the_driver_measures(self, running: Path) -> None:
        assert cli.items("status")[0]["gpus"] is None
        (item,) = cli.items("status", "-v")
        assert [gpu["place"] for gpu in item["gpus"]] == [FIRST, SECOND]
        kinds = {key: type(value) for key, value in item["gpus"][0].items()}
        assert kinds == {
            "place": str, "name": str, "total": int, "used": int, "others": int, "notes": list, "simulated": bool,
            "worker": type(None),
        }  # fmt: skip
        assert item["gpus"][0]["total"] == TOTAL and item["gpus"][0]["simulated"]
        text = cli.ok("status", "-v")
        assert f"{FIRST}: simulated GPU, 0B of 64.0MiB used as measured, 0B by other processes\n  simulated: " in text

    def test_what_is_reserved_is_shown_where_there_is_any(self, running: Path) -> None:
        assert "RESERVED" not in cli.ok("status") + cli.ok("top", "--once")
        cli.ok("warm", "alpha", "--to", "gpu:0")  # whoever loads it has buffers on the host
        assert "RESERVED" in cli.ok("status") and "RESERVED" in cli.ok("top", "--once")
        host, first, _ = cli.items("status")[0]["places"]
        assert host["reserved"] > 0 == first["reserved"] and host["free"] == host["budget"] - host["used"]

    def test_metrics_name_each_gpu(self, running: Path) -> None:
        cli.ok("warm", "alpha", "--to", "gpu:1")
        text = cli.ok("status", "--prometheus")
        assert f'trims_place_budget_bytes{{place="{FIRST}"}} {16 * MIB}' in text
        assert f'trims_place_reserved_bytes{{place="{SECOND}"}} 0' in text
        assert f'trims_residencies{{place="{SECOND}",state="resident"}} 1' in text
