"""One message of every kind, with every field set to something that is not its default."""

from __future__ import annotations

from trims.wire.messages import (
    Attach,
    Attached,
    Evict,
    Forget,
    Hello,
    Message,
    Pin,
    Progress,
    Refused,
    Release,
    Result,
    Status,
    Stop,
    Unpin,
    WaitFor,
    Warm,
    Welcome,
)

SAMPLES: list[Message] = [
    Hello(version=1, trims="0.1.0", job="123_4"),
    Attach(id=1, ref="resnet50:latest", place="gpu:GPU-1", variant="auto", prefer="ort-1", timeout=2.5),
    Release(lease=9),
    Warm(
        id=2,
        ref="org/m:v2",
        place="remote",
        flavour="torch",
        ttl=30.0,
        wait=False,
        timeout=1.0,
        evict=False,
        dry_run=True,
    ),
    Pin(id=3, ref="m", place="disk", flavour="raw", owner="me", reason="gr\u00fc\u00dfe", expires=60.0, timeout=5.0),
    Unpin(id=4, ref="m", owner="me"),
    Evict(id=5, ref="m", place="disk", idle=3.0, until_free=1 << 40, force=True, wait=True, timeout=4.0, dry_run=True),
    WaitFor(id=6, condition="free", ref="m", place="disk", nbytes=1 << 33, timeout=0.5),
    Forget(id=7, digest="ab" * 32, force=True),
    Status(id=8),
    Stop(id=9, drain=False, timeout=7.0),
    Welcome(version=1, trims="0.1.0", pid=42, identity="0f" * 16, store="/s", store_id="1e" * 16),
    Attached(id=1, lease=9, digest="ab" * 32, variant="raw", place="host", map_nbytes=8192, table=(4096, 1000)),
    Attached(id=2, lease=9, digest="ab" * 32, variant="k", place="host", map_nbytes=64, table=(4096, 9), how="joined"),
    Progress(id=2, done=1 << 20, total=1 << 30),
    Result(id=4, items=[{"ref": "m", "nbytes": 5, "victims": []}]),
    Refused(id=5, code="no-room", what="w", why="y", hint="h", details={"need": 3, "blockers": [{"ref": "m"}]}),
]
