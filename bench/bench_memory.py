"""Memory of eight processes that run one model at once, by proportional set size: a shared page counts once in all."""

from __future__ import annotations

from bench import group, zoo
from bench.harness import Figure, Row, report
from bench.world import World, private_memory

COUNT = 8


def run(quick: bool) -> None:
    rows, notes = [], []
    count = 2 if quick else COUNT
    with World() as world:
        world.trims("init")
        names = ["resnet50"] if quick else ["resnet50", "vit6"]
        for name in names:
            world.trims("import", str(zoo.built(name)), "--name", name)
        pid = world.start()
        for name in names:
            world.trims("warm", name)
            rows += measure(world, name, count)
        notes.append(f"the manager itself: {private_memory(pid) / (1 << 20):.1f} MiB of private memory")
    report("memory", f"Memory of {count} processes with one model (sum of PSS)", rows, notes, quick)


def measure(world: World, name: str, count: int) -> list[Row]:
    path = zoo.built(name)
    floor = group.run(group.Spec("ort/floor"), count, world.env)
    native = group.run(group.Spec("ort/native", str(path)), count, world.env)
    rows = []
    for share in ("exact", "max"):
        ours = group.run(group.Spec("ort/trims", name, share=share), count, world.env)
        ideal = path.stat().st_size + floor.pss_total
        figures = {
            "native": Figure.single(native.pss_total, "B"),
            "weights once + framework floors": Figure.single(ideal, "B"),
            "private dirty, a trims process": Figure.single(ours.private_dirty, "B"),
            "private dirty, a native process": Figure.single(native.private_dirty, "B"),
        }
        # What prepacking copies is ONNX Runtime's own; only the form without it can come near the ideal on a ViT.
        target, met = "within 10 % of weights once + floors", ours.pss_total <= 1.1 * ideal
        if name == "resnet50":
            target, met = f"{target}; 4x less than native", met and native.pss_total >= 4 * ours.pss_total
        label = "same bits" if share == "exact" else "prepacking off"
        rows.append(Row(f"{name}: {label}", Figure.single(ours.pss_total, "B"), figures, target, met))
    return rows
