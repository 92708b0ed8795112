"""100,000 refs: listing names, one lookup, one durable add, eight writers at once, beside SQLite with a WAL."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from bench.harness import Figure, Row, interleave, report
from bench.world import World

WRITERS, EACH = 8, 50
SELECT = "select document from refs where ref = ?"


def run(quick: bool) -> None:
    count = 2_000 if quick else 100_000
    with World() as world:
        store = filled(world, count)
        database = sqlite(world.directory / "refs.db", count)
        rows = listing(store, database, 3 if quick else 20)
        rows += single(store, database, count, 20 if quick else 300)
        rows.append(writers(store, world.directory / "refs.db"))
    report("catalog", f"{count:,} refs", rows, ["SQLite: WAL, synchronous=FULL"], quick)


def an_entry(ref: str):  # type: ignore[no-untyped-def]
    from trims.disk.catalog import Entry

    return Entry(ref, "ab" * 32, "onnx", 120, 1 << 20, 1 << 20, "none", 1.7e9, {"path": "m.onnx", "nbytes": 1 << 20})


def filled(world: World, count: int):  # type: ignore[no-untyped-def]
    """A store with `count` refs, written without the flushes of a real import: seconds instead of minutes."""

    from trims.disk import sealed, snapshot
    from trims.disk.catalog import FORMAT, fields_of
    from trims.disk.store import create_store

    store = create_store(str(world.store))
    for n in range(count):
        entry = an_entry(f"model-{n:06d}:latest")
        path = Path(store.paths.entry(entry.ref))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(sealed.seal({"format": FORMAT, **fields_of(entry)}))
    snapshot.rebuild(store.paths)
    return store


def sqlite(path: Path, count: int) -> sqlite3.Connection:
    connection = connect(path)
    connection.execute("create table refs (ref text primary key, digest text, document text)")
    document = str(an_entry("x"))
    rows = ((f"model-{n:06d}:latest", "ab" * 32, document) for n in range(count))
    with connection:
        connection.executemany("insert into refs values (?, ?, ?)", rows)
    return connection


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=60)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    return connection


def listing(store, database: sqlite3.Connection, rounds: int) -> list[Row]:  # type: ignore[no-untyped-def]
    from trims.disk.catalog import Catalog

    sides = {
        "trims": lambda: Catalog(store.paths).refs(),
        "SQLite": lambda: [ref for (ref,) in database.execute("select ref from refs")],
    }
    figures = interleave(sides, rounds)
    ours = figures["trims"]
    return [Row("list all names, snapshot current", ours, {"SQLite": figures["SQLite"]}, "0.1 s", ours.p50 <= 0.1)]


def single(store, database: sqlite3.Connection, count: int, rounds: int) -> list[Row]:  # type: ignore[no-untyped-def]
    from trims.disk.catalog import Catalog

    catalog, chosen, fresh = Catalog(store.paths), random.Random(0), iter(range(10**9))

    def any_ref() -> str:
        return f"model-{chosen.randrange(count):06d}:latest"

    def add_row() -> None:
        with database:
            database.execute("insert into refs values (?, ?, ?)", (f"n{next(fresh)}", "ab" * 32, str(an_entry("x"))))

    lookups = interleave(
        {
            "trims": lambda: catalog.get(any_ref()),
            "SQLite": lambda: database.execute(SELECT, (any_ref(),)).fetchone(),
        },
        rounds,
    )
    adds = interleave({"trims": lambda: catalog.put(an_entry(f"new-{next(fresh)}:latest")), "SQLite": add_row}, rounds)
    found = []
    for what, figures in (("one lookup", lookups), ("one durable add", adds)):
        ours = figures["trims"]
        found.append(Row(what, ours, {"SQLite": figures["SQLite"]}, "1 ms", ours.p50 <= 1e-3))
    return found


def _write_refs(root: str, writer: int) -> None:
    from trims.disk.catalog import Catalog
    from trims.paths import StorePaths

    catalog = Catalog(StorePaths(root))
    for n in range(EACH):
        catalog.put(an_entry("x:y")._replace(ref=f"writer-{writer}-{n}:latest"))


def _write_rows(path: str, writer: int) -> None:
    connection = connect(Path(path))
    for n in range(EACH):
        with connection:
            connection.execute("insert into refs values (?, ?, ?)", (f"w{writer}-{n}", "ab" * 32, str(an_entry("x"))))
    connection.close()


def together(target: Callable[[str, int], None], where: str) -> float:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=target, args=(where, n)) for n in range(WRITERS)]
    begun = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - begun


def writers(store, path: Path) -> Row:  # type: ignore[no-untyped-def]
    from trims.disk.catalog import Catalog

    before = len(Catalog(store.paths).refs())
    ours, theirs = together(_write_refs, store.root), together(_write_rows, str(path))
    kept = len(Catalog(store.paths).refs()) - before
    figures = {"SQLite": Figure.single(theirs)}
    what = f"{WRITERS} writers at once, {EACH} adds each; {kept} of {WRITERS * EACH} kept"
    return Row(what, Figure.single(ours), figures, "all kept", kept == WRITERS * EACH)
