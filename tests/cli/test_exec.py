"""`trims exec` as a person runs it: every way to start a Python, what it leaves as it is, and what it says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zipapp
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import cli, redirecting
from helpers.redirecting import LOADS, execute, outcomes

from trims_cli import interpreters

MULTI = """
import multiprocessing, sys
import numpy
def load(path):
    print(float(numpy.load(path)["w"].sum()), flush=True)
if __name__ == "__main__":
    for way in ("fork", "spawn", "forkserver"):
        child = multiprocessing.get_context(way).Process(target=load, args=(sys.argv[1],))
        child.start()
        child.join()
        assert child.exitcode == 0, way
"""
SERVER = """
import os, numpy
answer = float(numpy.load("m.npz")["w"].sum())
with open("told", "w") as told:
    print(answer, file=told)
def wsgi(environ, start_response):
    start_response("200 OK", [])
    return []
"""


@pytest.fixture
def world(runtime: object, home: Path) -> Path:
    """A directory with m.npz, which the store knows, and app.py, which prints a number of what it loads."""
    directory = home / "w"
    directory.mkdir()
    (directory / "app.py").write_text(LOADS)
    redirecting.bring(Path(os.environ["TRIMS_STORE"]), redirecting.archive(directory / "m.npz"))
    return directory


def loads(world: Path, *words: str | Path, times: int = 1, **options: Any) -> None:
    """`words` under exec print the archive's number `times` times, each from shared memory, and nothing else."""
    report = world / "report"
    report.unlink(missing_ok=True)
    done = execute("--report", report, "--", *words, cwd=options.pop("cwd", world), **options)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.split() == [redirecting.total(world / "m.npz")] * times
    assert outcomes(report) == ["redirected"] * times


# ---- ways to start


def test_a_script_by_relative_and_linked_paths_and_after_chdir(world: Path) -> None:
    (world / "link.npz").symlink_to("m.npz")
    program = "import os, sys; sys.argv[1:] = ['m.npz', './link.npz']\n" + LOADS
    (world / "twice.py").write_text(program + "os.chdir('..'); print(float(numpy.load('w/m.npz')['w'].sum()))\n")
    loads(
        world, sys.executable, "twice.py", times=3, env={"TRIMS_STORE": os.path.relpath(world.parent / "store", world)}
    )


def test_a_module_a_zip_application_and_a_shell_script(world: Path) -> None:
    (world / "pack").mkdir()
    (world / "pack" / "__main__.py").write_text(LOADS)
    zipapp.create_archive(world / "pack", world / "app.pyz", sys.executable)
    (world / "run.sh").write_text(
        f'{sys.executable} -m pack "$1"\n./app.pyz "$1"\n'
    )  # without a first line: sh runs it
    (world / "run.sh").chmod(0o755)
    loads(world, "./run.sh", "m.npz", times=2)


def test_a_virtual_environment_without_trims(world: Path) -> None:
    venv = world / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    site = next(venv.glob("lib/python*/site-packages"))
    for part in Path(np.__file__).parent.parent.glob("numpy*"):
        (site / part.name).symlink_to(part)
    script = venv / "bin" / "console"
    lent = "import numpy\ntry:\n    import msgspec\n    print('lent')\nexcept ImportError:\n    pass\n"
    script.write_text(f"#!{venv}/bin/python\n{lent}{LOADS}")
    script.chmod(0o755)
    alone = "import importlib.util as u; assert not u.find_spec('trims') and not u.find_spec('msgspec')"
    subprocess.run([venv / "bin" / "python", "-c", alone], check=True, env={})
    loads(world, "console", "m.npz", env={"PATH": f"{venv}/bin:{os.environ['PATH']}"})


def test_children_of_multiprocessing(world: Path) -> None:
    (world / "multi.py").write_text(MULTI)
    loads(world, sys.executable, "multi.py", "m.npz", times=3)
    ends = redirecting.lines(world / "report", "process")
    assert sorted(end["redirected"] for end in ends) == [0, 1, 1, 1]


@pytest.mark.parametrize("server", ["gunicorn", "uvicorn"])
def test_workers_of_servers(world: Path, server: str) -> None:
    pytest.importorskip(server)
    (world / "server.py").write_text(SERVER)
    words = {
        "gunicorn": ["-w", "2", "-b", f"unix:{world}/sock", "server:wsgi"],
        "uvicorn": ["--workers", "2", "--uds", f"{world}/sock", "--interface", "wsgi", "server:wsgi"],
    }[server]
    os.mkfifo(world / "told")
    command = [*cli.TRIMS, "exec", "--report", "report", "--", sys.executable, "-m", server, *words]
    with open(os.open(world / "told", os.O_RDWR), "rb", buffering=0) as told:
        child = subprocess.Popen(
            command, cwd=world, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            numbers = {told.readline().strip().decode() for _ in range(2)}
            child.terminate()
            child.wait(60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    assert numbers == {redirecting.total(world / "m.npz")}
    found = redirecting.lines(world / "report", "load")
    assert [line["outcome"] for line in found] == ["redirected"] * len(found) and len({x["pid"] for x in found}) >= 2


# ---- what is left as it is


def test_the_program_is_the_process(world: Path) -> None:
    script = "echo $$; ls /proc/self/fd; grep -E 'Sig(Blk|Ign)' /proc/self/status; kill -TERM $$"
    words = ["sh", "-c", script]
    native = subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    ours = subprocess.Popen([*cli.TRIMS, "exec", *words], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    expected, found = native.communicate()[0].splitlines(), ours.communicate()[0].splitlines()
    assert found[0] == str(ours.pid) and found[1:] == expected[1:] and len(found) > 5
    assert native.returncode == ours.returncode == -signal.SIGTERM
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert cli.ok("exec", sys.executable, "-c", code) == "True\n"


def test_closed_streams_stay_closed(world: Path) -> None:
    closing = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *cli.TRIMS]
    code = """
import os
for fd in 0, 1, 2:
    try:
        os.fstat(fd)
    except OSError:
        open("closed", "a").write(str(fd))
"""
    done = subprocess.run([*closing, "exec", sys.executable, "-c", code], cwd=world)
    assert (done.returncode, (world / "closed").read_text()) == (0, "012")
    assert [subprocess.run([*closing, *words]).returncode for words in (["ls"], ["show", "nonesuch"])] == [0, 10]


def test_exit_codes_are_those_of_env(world: Path) -> None:
    assert execute("--", "sh", "-c", "exit 7").returncode == 7
    assert "there is no such program" in cli.fails(127, "exec", "nonesuch-program")
    assert "there is no such program" in cli.fails(127, "exec", "")
    assert "ermission denied" in cli.fails(126, "exec", str(world / "app.py"))
    (world / "bad").write_text("#!/nowhere/python\n")
    (world / "bad").chmod(0o755)
    os.mkfifo(world / "pipe")
    assert "its interpreter is missing" in cli.fails(127, "exec", str(world / "bad"))
    for words, says in (
        ((), "exec what?"),
        (("--print-env", "sh", "true"), "exec what?"),
        (("--print-env", "csh"), "use one of sh, slurm, json"),
        (("--no-such-flag", "true"), "no such option"),
        (("--fallback", "maybe", "true"), "use one of native, fail"),
        (("--to", "remote", "true"), "places are auto, host and disk"),
        (("--report", "/nowhere/report", "true"), "cannot write the report"),
        (("--report", f"{world}/pipe", "true"), "cannot write the report"),  # nobody reads it
        (("--require", "nonesuch", "true"), "no model nonesuch:latest"),
        (("--warm", "m", "true"), "no manager is running"),
        (("--timeout", "soon", "true"), "soon"),
    ):
        assert says in cli.fails(125, "exec", *words), words


def test_the_programs_words_are_its_own(world: Path) -> None:
    assert cli.ok("exec", "echo", "--report", "-h", "--json", "--") == "--report -h --json --\n"
    assert cli.ok("--quiet", "exec", "--", "echo", "--", "-q") == "-- -q\n"
    assert cli.ok("exec", "-qv", "echo", "--warm", "-q") == "--warm -q\n"  # what typer parses


def test_path_and_sitecustomize_of_the_program_are_kept(world: Path) -> None:
    lib = world / "lib"
    lib.mkdir()
    (lib / "sitecustomize.py").write_text("import builtins\nbuiltins.customized = __file__\n")
    (world / "app.py").write_text(f"assert customized == {str(lib / 'sitecustomize.py')!r}\n{LOADS}")
    within = [*cli.TRIMS, "exec", "--report", world / "report", "--", sys.executable, "app.py", "m.npz"]
    loads(world, *within, env={"PYTHONPATH": str(lib)})  # exec within exec: once is enough
    assert cli.ok("exec", "sh", "-c", "echo $LD_PRELOAD", env={"LD_PRELOAD": "libm.so.6"}) == "libm.so.6\n"
    (lib / "sitecustomize.py").write_text("raise RuntimeError('broken')\n")
    (world / "app.py").write_text(LOADS)
    done = execute(sys.executable, "app.py", "m.npz", cwd=world, env={"PYTHONPATH": str(lib)})
    native = subprocess.run(
        [sys.executable, "-c", ""], env={**os.environ, "PYTHONPATH": str(lib)}, stderr=-1, text=True
    )
    assert done.stderr == 2 * native.stderr and "broken" in done.stderr and done.returncode == 0


def test_another_interpreter_in_the_process_is_left_alone(world: Path) -> None:
    """What it did at its end would hang: by then the main one has taken threads away."""
    pytest.importorskip("_xxsubinterpreters")
    code = "import _xxsubinterpreters as x; x.run_string(x.create(), 'import sys')\n"
    (world / "two.py").write_text(code + LOADS)
    loads(world, sys.executable, "two.py", "m.npz")
    assert [line["what"] for line in redirecting.lines(world / "report")] == ["load", "process"]


def test_disabled_it_passes_straight_through(world: Path) -> None:
    code = (
        "import os, sys; print('sitecustomize' in sys.modules, [n for n in os.environ if n.startswith('TRIMS_EXEC')])"
    )
    env = {"TRIMS_DISABLE": "1", "TRIMS_STORE": "/nowhere"}
    assert cli.ok("exec", sys.executable, "-c", code, env=env).endswith("[]\n")


def test_print_env_does_what_exec_does(world: Path) -> None:
    out = cli.ok("exec", "--print-env", "sh", "--report", str(world / "it's"))
    script = out + f"exec {sys.executable} app.py m.npz\n"
    done = subprocess.run(["sh"], input=script, cwd=world, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (redirecting.total(world / "m.npz"), "")
    assert outcomes(world / "it's") == ["redirected"]
    slurm = dict(
        line.removeprefix("export ").split("=", 1) for line in cli.ok("exec", "--print-env", "slurm").splitlines()
    )
    assert slurm == json.loads(cli.ok("exec", "--print-env", "json"))["env"]


# ---- what cannot be redirected


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["python", "-I", "x.py"], "python -I ignores"), (["/usr/bin/python3.11", "-uE"], "python3.11 -E ignores"),
        (["python", "-BSc", "pass"], "-S runs no sitecustomize"), (["python", "-W", "ignore", "-I"], "-I"),
        (["python", "-Wignore", "-X", "dev", "-E"], "-E"), (["env", "A=1", "python", "-I"], "-I"),
        (["python", "app.py", "-I"], ""), (["python", "-c", "pass", "-I"], ""), (["python", "-mI"], ""),
        (["python", "-cI"], ""), (["python", "-", "-I"], ""), (["python", "-XI"], ""), (["python", "--", "-I"], ""),
        (["grep", "-I"], ""), ([], ""),
    ],
)  # fmt: skip
def test_pythons_that_do_not_listen(words: list[str], says: str) -> None:
    found = interpreters.obstacle(words, {"PATH": "/usr/bin:/bin"})
    assert says in found and bool(says) == bool(found)


def test_a_deaf_python_is_said_or_refused(world: Path) -> None:
    script = world / "deaf"
    script.write_text(f"#!{sys.executable} -I\n{LOADS}")
    script.chmod(0o755)
    done = execute(str(script), str(world / "m.npz"))
    assert done.returncode == 0 and done.stdout.strip() == redirecting.total(world / "m.npz")
    assert done.stderr.count("\n") == 1 and f"{script} begins with {sys.executable} -I, which ignores" in done.stderr
    assert execute("--quiet", str(script)).stderr == ""
    assert "nothing can be redirected" in cli.fails(125, "exec", "--fallback", "fail", str(script))
    assert "nothing can be redirected" in cli.fails(125, "exec", "--require", "m", str(script))


def test_a_missing_store_is_said(world: Path) -> None:
    done = execute("--store", world / "none", sys.executable, "app.py", "m.npz", cwd=world)
    assert done.returncode == 0 and f"there is no store at {world / 'none'}" in done.stderr.splitlines()[0]


def test_fallback_fail_raises_and_exits_with_125(world: Path) -> None:
    redirecting.archive(world / "new.npz", seed=3)
    for words in (["--fallback", "fail"], []):
        env = {} if words else {"TRIMS_FALLBACK": "fail"}
        done = execute(*words, sys.executable, "app.py", "m.npz", "new.npz", cwd=world, env=env)
        assert done.returncode == 125 and done.stdout.strip() == redirecting.total(world / "m.npz")
        assert f"{world / 'new.npz'} cannot be redirected" in done.stderr.splitlines()[-1]
    caught = "import numpy\ntry:\n    numpy.load('new.npz')\nexcept Exception as error:\n    print(error.code)\n"
    done = execute("--fallback", "fail", sys.executable, "-c", caught, cwd=world)
    assert (done.returncode, done.stdout) == (0, "not-redirected\n")


def test_a_process_below_the_program_ends_as_the_program_does(world: Path) -> None:
    """Its loads are in the report, a refused one is its exit code, and of a process without loads no word is said."""
    report = world / "report"
    redirecting.archive(world / "new.npz", seed=3)
    script = f"{sys.executable} app.py m.npz; {sys.executable} app.py new.npz; echo $?; {sys.executable} app.py; true"
    done = execute("--fallback", "fail", "--report", report, "sh", "-c", script, cwd=world)
    assert (done.returncode, done.stdout.split()) == (0, [redirecting.total(world / "m.npz"), "125"])
    assert [(end["redirected"], end["native"]) for end in redirecting.lines(report, "process")] == [(1, 0), (0, 0)]
    (refused,) = redirecting.lines(report, "fallback")
    assert refused["outcome"] == "refused" and refused["path"] == str(world / "new.npz")


def test_a_worker_of_a_preloading_server_says_what_it_shares(world: Path) -> None:
    code = """
import os, sys, numpy
kept = numpy.load("m.npz")
if os.fork():
    sys.exit(os.wait()[1])
"""
    done = execute("--report", world / "report", sys.executable, "-c", code, cwd=world)
    assert done.returncode == 0, done.stderr
    ends = redirecting.lines(world / "report", "process")
    assert [end["redirected"] for end in ends] == [0, 1]
    assert ends[0]["shared_nbytes"] == ends[1]["shared_nbytes"] >= 160_000


def test_require_sees_every_process_and_nothing_less(world: Path) -> None:
    (world / "outer.py").write_text("import subprocess, sys\nsubprocess.run([sys.executable, *sys.argv[1:]])\n")
    done = execute("--require", "m", sys.executable, "outer.py", "app.py", "m.npz", cwd=world)
    assert (done.returncode, done.stderr) == (0, "")
    redirecting.archive(world / "m.npz", seed=9)  # exported anew under its old name
    done = execute("--require", "m", "-q", sys.executable, "app.py", "m.npz", cwd=world)
    assert done.returncode == 125 and done.stdout.strip() == redirecting.total(world / "m.npz")
    assert done.stderr.splitlines() == ["trims: nothing was redirected to m:latest, which --require asks for"]
    left_open = "kept = open('left', 'w'); kept.write('all of it')"
    assert execute("--require", "m", sys.executable, "-c", left_open, cwd=world).returncode == 125
    assert (world / "left").read_text() == "all of it"
    done = execute("--require", "m", sys.executable, "-c", "1/0")
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


# ---- report and import


def test_what_was_saved_is_told_after_a_native_run(world: Path) -> None:
    report = world / "report"
    assert execute("--native", "--report", report, sys.executable, "app.py", "m.npz", cwd=world).returncode == 0
    whole = "import numpy; f = numpy.load('m.npz'); [f[name] for name in f.files]"
    assert execute("--native", "--report", report, sys.executable, "-c", whole, cwd=world).returncode == 0
    assert execute("--report", report, sys.executable, "app.py", "m.npz", cwd=world).returncode == 0
    first, last = redirecting.lines(report, "load")
    assert first["outcome"] == "native" and last["outcome"] == "redirected" and last["how"] == "direct"
    assert last["native_seconds"] == pytest.approx(first["seconds"], abs=1e-5) and last["model"] == "m:latest"
    assert last["saved_seconds"] == last["native_seconds"] - last["seconds"]
    ends = redirecting.lines(report, "process")
    assert [end["redirected"] for end in ends] == [0, 0, 1] and ends[2]["nbytes"] == (world / "m.npz").stat().st_size


def test_missing_models_are_imported_once(world: Path) -> None:
    path, report = redirecting.archive(world / "new one.npz", seed=4), world / "report"
    two = f"import os; import numpy; pid = os.fork()\n{LOADS}\npid and os.waitpid(pid, 0)"
    done = execute("--import-missing", "--report", report, sys.executable, "-c", two, str(path))
    assert (done.returncode, done.stderr, done.stdout.split()) == (0, "", [redirecting.total(path)] * 2)
    assert outcomes(report) == ["redirected"] * 2
    names = [item["name"] for item in cli.items("ls")]
    assert len(names) == 2 and names[0].startswith("exec/new-one-") and names[0].endswith(":latest")
    (world / "odd.npz").write_bytes(b"PK\3\4 is no archive")
    done = execute("--import-missing", sys.executable, "app.py", "odd.npz", cwd=world)
    assert done.returncode == 1 and "BadZipFile" in done.stderr and "odd.npz" not in done.stderr.splitlines()[0]


def test_the_hot_form_takes_all_its_flags() -> None:
    from trims_cli import hot, tree

    flags = hot.FORMS["exec"][3]
    command = next(command for command in tree.commands() if command.name == "exec")
    assert set(flags) == {name for option in command.options for name in option.names}
    assert shutil.which("sh")
