from __future__ import annotations

import pytest

from trims.paths import RuntimePaths, StorePaths, shard, unescape

DIGEST = "ab" * 32


def test_everything_of_a_store_is_below_its_root() -> None:
    paths = StorePaths("/some/store")
    properties = [name for name in dir(StorePaths) if isinstance(getattr(StorePaths, name), property)]
    found = [getattr(paths, name) for name in properties]
    found += [
        paths.container(DIGEST),
        paths.sidecar(DIGEST),
        paths.variant(DIGEST, "k"),
        paths.variant_sidecar(DIGEST, "k"),
    ]
    found += [paths.entry("a/b:c"), paths.ref_lock("a/b:c")]
    assert all(path.startswith("/some/store/") for path in found)
    assert len(set(found)) == len(found)


def test_names_of_one_model() -> None:
    paths = StorePaths("s")
    assert paths.container(DIGEST) == f"s/containers/ab/{DIGEST}.h5"
    assert paths.sidecar(DIGEST) == f"s/containers/ab/{DIGEST}.json"
    assert paths.entry("org/net:v1") == f"s/catalog/{shard('org/net:v1')}/org%2Fnet%3Av1.json"


def test_refs_spread_over_the_shards() -> None:
    counts: dict[str, int] = {}
    for n in range(10_000):
        counts[shard(f"model-{n}:latest")] = counts.get(shard(f"model-{n}:latest"), 0) + 1
    assert len(counts) == 256 and max(counts.values()) < 3 * 10_000 / 256


@pytest.mark.parametrize("component", ["%", "%zz", "a%ff", "%c3"])
def test_what_escape_never_makes_is_refused(component: str) -> None:
    with pytest.raises(ValueError):
        unescape(component)


def test_the_runtime_directory_is_the_sockets() -> None:
    paths = RuntimePaths("/run/trims/trims.sock")
    assert {paths.index, paths.lock, paths.journal, paths.log} == {
        f"/run/trims/{name}" for name in ("index", "lock", "journal", "log")
    }
    assert RuntimePaths("trims.sock").directory == "."
