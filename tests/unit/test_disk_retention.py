"""Which names a policy gives up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trims.disk.retention import Named, Policy, choose

NOW = 1000.0


def model(ref: str, digest: str = "", nbytes: int = 10, created: float = 0.0, used: float = 0.0, **labels: str):
    return Named(ref, digest or ref, nbytes, created, used, labels)


def refs(models, **policy):
    return [m.ref for m in choose(models, Policy(**policy), NOW)]


def test_unused_is_neither_used_nor_imported_lately():
    models = [model("old:1"), model("new:1", created=990), model("used:1", used=950), model("half:1", used=500)]
    assert refs(models, unused_for=100) == ["old:1", "half:1"]
    assert refs(models, unused_for=0) == ["old:1", "half:1", "used:1", "new:1"]
    assert refs(models) == []


def test_the_newest_tags_of_each_name_are_kept():
    models = [model(f"a:{n}", created=n) for n in range(1, 5)] + [model("b:9", created=1)]
    assert refs(models, keep_last=2) == ["a:1", "a:2"]
    assert refs(models, keep_last=2, unused_for=998.5) == ["a:1"]
    assert refs(models, keep_last=0) == ["a:1", "b:9", "a:2", "a:3", "a:4"]


def test_labels_keep_and_remove_nothing_alone():
    models = [model("a:1", stage="prod"), model("b:1", stage="dev"), model("c:1")]
    assert refs(models, unused_for=1, keep_labelled=(("stage", "prod"), ("x", "y"))) == ["b:1", "c:1"]
    assert refs(models, keep_labelled=(("stage", "prod"),)) == []


def test_a_target_takes_the_least_recently_used_and_no_more():
    models = [model("a:1", used=3), model("b:1", used=1), model("c:1", used=2)]
    assert refs(models, target_nbytes=30) == []
    assert refs(models, target_nbytes=29) == ["b:1"]
    assert refs(models, target_nbytes=10) == ["b:1", "c:1"]
    assert refs(models, target_nbytes=0) == ["b:1", "c:1", "a:1"]
    assert refs(models, target_nbytes=0, unused_for=998) == ["b:1", "c:1"]


def test_shared_bytes_count_once_and_go_with_the_last_name():
    models = [model("a:1", "same"), model("a:2", "same", k="v"), model("b:1", used=5)]
    assert refs(models, target_nbytes=10) == ["a:1", "a:2"]
    assert refs(models, target_nbytes=10, keep_labelled=(("k", "v"),)) == ["b:1"]
    assert refs(models, target_nbytes=0, keep_labelled=(("k", "v"),)) == ["b:1"]


names = st.builds(
    model, st.sampled_from(["a:1", "a:2", "b:1", "b:2", "c:1"]), st.sampled_from("xyz"), st.just(7),
    st.floats(0, 999), st.floats(0, 999),
)  # fmt: skip


@given(st.lists(names, unique_by=lambda m: m.ref), st.integers(0, 30), st.none() | st.integers(0, 3))
def test_a_target_is_met_or_nothing_more_may_go(models, target, keep):
    policy = Policy(keep_last=keep, target_nbytes=target)
    gone = choose(models, policy, NOW)
    left = [m for m in models if m not in gone]
    more = choose(models, Policy(keep_last=0 if keep is None else keep), NOW)
    assert {m.ref for m in gone} <= {m.ref for m in more}
    if sum({m.digest: m.nbytes for m in left}.values()) > target:
        kept = {m.digest for m in models if m not in more}
        assert all(m.digest in kept for m in left)
