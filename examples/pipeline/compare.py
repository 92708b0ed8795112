"""The pipeline detect | orient | read, several at once: as it is, and the same programs under `trims exec`.

    python examples/pipeline/compare.py build/models/rapidocr-onnxruntime-1.4.4

With --classifier FILE the last stage is classify, with that model: any that takes one image of 224 x 224.

Makes a store and starts a manager in a temporary directory, imports the three models and warms them; then runs the
pipelines, natively and redirected, taking turns. All of it is gone at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
FILES = {
    "detect": "ch_PP-OCRv4_det_infer.onnx",
    "orient": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "read": "ch_PP-OCRv4_rec_infer.onnx",
}
TEXTS = ["pipeline", "shared weights", "the brown fox", "one by one", "read 2019", "hello world"]
MIB = 1 << 20
Env = dict[str, str]
Models = dict[str, Path]
_SAID = re.compile(r"(\w+): process (\d+), session in ([0-9.]+) ms")


@dataclass(frozen=True)
class Outcome:
    """What some pipelines did at once. Seconds and bytes.

    first: from the start of all to each one's first answer. steady: a page through an idle pipeline, later. sessions:
    by stage, what each process took to make its session. memory: PSS of all their processes. texts: the answers.
    """

    first: list[float]
    steady: list[float]
    sessions: dict[str, list[float]]
    memory: int
    texts: list[list[str]]


def stages(directory: Path, classifier: Path | None = None) -> Models:
    """Stage to model file, in order."""
    models = {stage: directory.resolve() / file for stage, file in FILES.items()}
    if classifier is not None:
        del models["read"]
        models["classify"] = classifier.resolve()
    return models


def command(models: Models) -> str:
    """The pipeline, as a shell knows it."""
    programs = [(sys.executable, str(HERE / f"{stage}.py"), str(path)) for stage, path in models.items()]
    return " | ".join(map(shlex.join, programs))


def run(models: Models, count: int, pages: int, env: Env, wrapper: list[str], others: tuple[int, ...] = ()) -> Outcome:
    """Run `count` pipelines at once, each reading `pages` pages. wrapper: what the command is given to.

    others: processes whose memory counts, too.
    """
    begun = time.perf_counter()
    words = [*wrapper, "sh", "-c", command(models)]
    pipe = subprocess.PIPE
    pipelines = [subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=env) for _ in range(count)]
    try:
        for pipeline in pipelines:
            put(pipeline, TEXTS[0])
        texts, first, steady = [], [], []
        for pipeline in pipelines:
            texts.append([get(pipeline)])
            first.append(time.perf_counter() - begun)
        for page in range(1, pages):
            for number, pipeline in enumerate(pipelines):
                sent = time.perf_counter()
                put(pipeline, TEXTS[page % len(TEXTS)])
                texts[number].append(get(pipeline))
                steady.append(time.perf_counter() - sent)
        said = [[line(pipeline.stderr) for _ in models] for pipeline in pipelines]
        found = [match for part in said for match in map(_SAID.search, part) if match]
        sessions = {stage: [float(m[3]) / 1e3 for m in found if m[1] == stage] for stage in models}
        memory = sum(map(pss, [*others, *(int(match[2]) for match in found)]))
        return Outcome(first, steady, sessions, memory, texts)
    finally:
        for pipeline in pipelines:
            pipeline.communicate()  # the end of the input ends one stage after the other


def put(pipeline: subprocess.Popen[bytes], text: str) -> None:
    assert pipeline.stdin
    try:
        pipeline.stdin.write(text.encode() + b"\n")
        pipeline.stdin.flush()
    except BrokenPipeError:
        pass  # `get` says why it ended


def get(pipeline: subprocess.Popen[bytes]) -> str:
    text = line(pipeline.stdout)
    if not text:
        raise SystemExit(f"a pipeline ended: {pipeline.communicate()[1].decode()}")
    return text.strip()


def line(stream) -> str:
    return stream.readline().decode()


def pss(pid: int) -> int:
    """Resident bytes of a process; a page that several share counts as their part of it."""
    for text in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if text.startswith("Pss:"):
            return int(text.split()[1]) * 1024
    return 0


class World:
    """A store with the models, and a manager that holds them: both in a directory that is gone at the end."""

    def __init__(self, models: Models) -> None:
        self.models = models

    def __enter__(self) -> World:
        self.directory = tempfile.mkdtemp(prefix="pipeline-")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRIMS_")}
        names = {"TRIMS_STORE": "store", "TRIMS_SOCKET": "trims.sock", "XDG_STATE_HOME": "state"}
        self.env = kept | {name: f"{self.directory}/{file}" for name, file in names.items()}
        self.env["TRIMS_SPARE"] = "0"  # memory kept ready for the next load would be counted here, and never used
        self.trims("init")
        for stage, path in self.models.items():
            self.trims("import", str(path), "--name", stage)
        self.manager = int(json.loads(self.trims("start", "--json"))["items"][0]["pid"])
        self.trims("warm", *self.models)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run([program(), "stop", "--now"], env=self.env, capture_output=True)
        shutil.rmtree(self.directory)

    def trims(self, *words: str) -> str:
        done = subprocess.run([program(), *words], env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr.strip())
        return done.stdout

    def native(self, count: int, pages: int) -> Outcome:
        return run(self.models, count, pages, self.env, [])

    def shared(self, count: int, pages: int) -> Outcome:
        """The same under `trims exec`; its memory includes the manager's."""
        wrapper = [program(), "exec", "--fallback", "fail", "--"]
        return run(self.models, count, pages, self.env, wrapper, (self.manager,))


def program() -> str:
    """The trims command: that of this Python, else that on the path."""
    own = Path(sys.executable).with_name("trims")
    return str(own) if own.exists() else shutil.which("trims") or sys.exit("trims is not installed")


def table(native: list[Outcome], shared: list[Outcome]) -> str:
    def row(name: str, pick, digits: int = 0) -> str:
        a, b = (median(value for outcome in side for value in pick(outcome)) for side in (native, shared))
        return f"{name:<34} {a:9.{digits}f} {b:9.{digits}f} {a / b:6.1f}x"

    lines = [f"{'':<34} {'native':>9} {'trims':>9}"]
    lines.append(row("first answer, from the start, ms", lambda o: [1e3 * x for x in o.first]))
    for stage in native[0].sessions:
        lines += [row(f"  session of {stage}, ms", lambda o, s=stage: [1e3 * x for x in o.sessions[s]], 1)]
    lines.append(row("a page, steady, ms", lambda o: [1e3 * x for x in o.steady], 1))
    lines.append(row("memory of all, MiB (PSS)", lambda o: [o.memory / MIB]))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="the directory with the models of rapidocr-onnxruntime")
    parser.add_argument("--classifier", type=Path, metavar="FILE", help="end with this model instead of reading")
    parser.add_argument("--pipelines", type=int, default=4, help="how many at once (4)")
    parser.add_argument("--pages", type=int, default=6, help="that each of them reads (6)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way (3)")
    args = parser.parse_args()
    models = stages(args.models, args.classifier)
    missing = [str(path) for path in models.values() if not path.is_file()]
    if missing or min(args.pipelines, args.pages - 1, args.rounds) < 1:
        parser.error(f"there is no {missing[0]}" if missing else "too few pipelines, pages (2) or rounds")
    native, shared = [], []
    with World(models) as world:
        for _ in range(args.rounds):
            native.append(world.native(args.pipelines, args.pages))
            shared.append(world.shared(args.pipelines, args.pages))
    texts = {tuple(part) for outcome in native + shared for part in outcome.texts}
    print(f"{args.pipelines} pipelines at once, each of {len(models)} processes; medians of {args.rounds} rounds")
    print(table(native, shared))
    print(f"the same answers from all: {'yes' if len(texts) == 1 else 'NO'}: {', '.join(min(texts))}")
    return 0 if len(texts) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
