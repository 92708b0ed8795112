"""Index rows whose fields all follow from one number, so that a reader can tell a row that is of two moments."""

from __future__ import annotations

from trims.shmindex.reader import Lease, Residency
from trims.shmindex.writer import IndexWriter

STATES = ("loading", "resident", "doomed")


def writer(path: str, **changes: object) -> IndexWriter:
    fields: dict[str, object] = {
        "identity": "0f" * 16,
        "pid": 42,
        "started": 7,
        "uid": 1000,
        "since": 1.5,
        "store": "/the/store",
        "socket": "/run/trims.sock",
        "version": "0.1.0",
        "residencies": 8,
        "leases": 16,
    }
    return IndexWriter(path, ["host", "gpu:GPU-1"], **{**fields, **changes})  # type: ignore[arg-type]


def put(index: IndexWriter, key: int, n: int) -> None:
    index.put_residency(
        key,
        digest=f"{key:064x}",
        variant=f"v{n}",
        place=("host", "gpu:GPU-1")[n % 2],
        ref=f"model{n}:latest",
        state=STATES[n % 3],
        nbytes=n * 10,
        done=n * 9,
        leases=n % 1000,
        pins=n % 7,
        hits=n,
        load_seconds=n / 2,
        since=n + 0.25,
        last_use=n + 0.5,
        expires=float("inf"),
    )


def is_whole(r: Residency) -> bool:
    n = r.hits
    return (
        r.variant == f"v{n}"
        and r.ref == f"model{n}:latest"
        and r.place == ("host", "gpu:GPU-1")[n % 2]
        and r.state == STATES[n % 3]
        and (r.nbytes, r.done, r.leases, r.pins) == (n * 10, n * 9, n % 1000, n % 7)
        and (r.load_seconds, r.since, r.last_use) == (n / 2, n + 0.25, n + 0.5)
    )


def put_lease(index: IndexWriter, lease: int, key: int) -> None:
    index.put_lease(
        lease, key, pid=lease * 2, uid=lease * 3, started=lease * 5, since=lease / 4, job=f"j{lease}",
        container=f"c{lease}",
    )  # fmt: skip


def is_whole_lease(lease: Lease) -> bool:
    n = lease.lease
    seen = (lease.pid, lease.uid, lease.started, lease.since, lease.job, lease.container)
    return seen == (n * 2, n * 3, n * 5, n / 4, f"j{n}", f"c{n}")
