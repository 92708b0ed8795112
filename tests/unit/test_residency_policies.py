"""Each policy against its textbook: the same decisions as the plainest program that does what its authors wrote."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
from helpers.residency_script import key
from hypothesis import given
from hypothesis import strategies as st

from trims.errors import UsageError
from trims.residency.policies import ALIASES, POLICIES, make
from trims.residency.policies.ordered import BLOCK, Ordered
from trims.residency.policies.s3fifo import S3Fifo

MODELS = "abcdefghijkl"
SIZES = {model: n % 4 + 1 for n, model in enumerate(MODELS)}
requests = st.lists(st.sampled_from(MODELS), max_size=120)
Give = Callable[[set[str]], str]


class Textbook:
    """A cache that is told of hits and misses and says which of those that are there goes."""

    def hit(self, model: str) -> None:
        raise NotImplementedError

    def miss(self, model: str) -> None:
        raise NotImplementedError

    def give(self) -> str:
        raise NotImplementedError


class FifoBook(Textbook):
    def __init__(self) -> None:
        self.queue: list[str] = []

    def hit(self, model: str) -> None:
        pass

    def miss(self, model: str) -> None:
        self.queue.append(model)

    def give(self) -> str:
        return self.queue.pop(0)


class LruBook(FifoBook):
    def hit(self, model: str) -> None:
        self.queue.remove(model)
        self.queue.append(model)


class LfuBook(LruBook):
    def __init__(self) -> None:
        super().__init__()
        self.uses: dict[str, int] = {}

    def hit(self, model: str) -> None:
        super().hit(model)
        self.uses[model] += 1

    def miss(self, model: str) -> None:
        super().miss(model)
        self.uses[model] = 1

    def give(self) -> str:
        model = min(self.queue, key=lambda m: self.uses[m])  # of equals the first, the longest unused
        self.queue.remove(model)
        return model


class GdsfBook(LfuBook):
    def __init__(self) -> None:
        super().__init__()
        self.clock = 0.0
        self.worth: dict[str, float] = {}

    def value(self, model: str) -> None:
        self.worth[model] = self.clock + self.uses[model] * (seconds(model) / SIZES[model])

    def hit(self, model: str) -> None:
        super().hit(model)
        self.value(model)

    def miss(self, model: str) -> None:
        super().miss(model)
        self.value(model)

    def give(self) -> str:
        model = min(self.queue, key=lambda m: self.worth[m])
        self.queue.remove(model)
        self.clock = self.worth[model]
        return model


class SieveBook(Textbook):
    """Algorithm 1 of the paper: newest at the head (index 0), the hand goes from the tail to the head."""

    def __init__(self) -> None:
        self.queue: list[str] = []
        self.visited: dict[str, bool] = {}
        self.hand: str | None = None

    def hit(self, model: str) -> None:
        self.visited[model] = True

    def miss(self, model: str) -> None:
        self.queue.insert(0, model)
        self.visited[model] = False

    def give(self) -> str:
        at = self.queue.index(self.hand) if self.hand is not None else len(self.queue) - 1
        while self.visited[self.queue[at]]:
            self.visited[self.queue[at]] = False
            at = at - 1 if at else len(self.queue) - 1
        self.hand = self.queue[at - 1] if at else None
        return self.queue.pop(at)


class S3Book(Textbook):
    """Algorithm 1 of the paper, sizes in bytes; the ghosts are as many bytes as nine tenths of what is there."""

    def __init__(self) -> None:
        self.small: deque[str] = deque()
        self.main: deque[str] = deque()
        self.ghosts: deque[str] = deque()
        self.freq: dict[str, int] = {}

    def hit(self, model: str) -> None:
        self.freq[model] = min(3, self.freq[model] + 1)

    def miss(self, model: str) -> None:
        self.freq[model] = 0
        if model in self.ghosts:
            self.ghosts.remove(model)
            self.main.append(model)
        else:
            self.small.append(model)

    def give(self) -> str:
        total = size(self.small) + size(self.main)
        if size(self.small) > 0.1 * total:
            while self.small:
                model = self.small.popleft()
                if self.freq[model] <= 1:
                    self.ghosts.append(model)
                    while size(self.ghosts) > 0.9 * total:
                        self.ghosts.popleft()
                    return model
                self.freq[model] = 0
                self.main.append(model)
        while self.freq[self.main[0]]:
            self.freq[self.main[0]] -= 1
            self.main.rotate(-1)
        return self.main.popleft()


def size(models: deque[str]) -> int:
    return sum(SIZES[model] for model in models)


def seconds(model: str) -> float:
    """What loading it costs; in quarters, so that sums are exact."""
    return MODELS.index(model) % 3 / 4


BOOKS = {
    "fifo": FifoBook, "lru": LruBook, "lfu": LfuBook, "gdsf": GdsfBook, "sieve": SieveBook, "s3fifo": S3Book,
    "flush": LruBook, "eager": LruBook, "never": LruBook,
}  # fmt: skip


@pytest.mark.parametrize("name", BOOKS)
@given(asked=requests, budget=st.integers(4, 14), leased=st.booleans())
def test_it_decides_as_its_textbook_does(name: str, asked: list[str], budget: int, leased: bool) -> None:
    """With `leased`, each use holds and releases it, as clients do: that changes no decision."""
    policy, book = POLICIES[name](), BOOKS[name]()
    there: set[str] = set()
    went: list[tuple[str, str]] = []
    for now, model in enumerate(asked):
        k, at = key(model), float(now)
        if model in there:
            book.hit(model)
            if leased:
                policy.hold(k)
            policy.hit(k, at)
            if leased:
                policy.release(k, at)
            continue
        while sum(SIZES[m] for m in there) + SIZES[model] > budget:
            victim = next(policy.victims(at))
            policy.chosen(victim)
            policy.remove(victim)
            went.append((victim.digest[:1], book.give()))
            there.remove(went[-1][0])
            assert went[-1][0] == went[-1][1], went
        policy.insert(k, SIZES[model], seconds(model), at)
        book.miss(model)
        there.add(model)


def test_lfu_forgets_what_went() -> None:
    lfu = make("lfu")
    for model in "ab":
        lfu.insert(key(model), 1, 1.0, 0.0)
    for _ in range(5):
        lfu.hit(key("a"), 1.0)
    lfu.remove(key("a"))
    lfu.hit(key("b"), 2.0)
    lfu.insert(key("a"), 1, 1.0, 3.0)
    assert list(lfu.victims(4.0)) == [key("a"), key("b")]


def test_gdsf_lets_the_large_the_cheap_and_the_unused_go() -> None:
    def order(*models: tuple[str, int, float, int]) -> list[str]:
        gdsf = make("gdsf")
        for model, nbytes, load_seconds, hits in models:
            gdsf.insert(key(model), nbytes, load_seconds, 0.0)
            for _ in range(hits):
                gdsf.hit(key(model), 1.0)
        return [k.digest[0] for k in gdsf.victims(2.0)]

    assert order(("a", 2, 1.0, 0), ("b", 8, 1.0, 0)) == ["b", "a"]
    assert order(("a", 2, 4.0, 0), ("b", 2, 1.0, 0)) == ["b", "a"]
    assert order(("a", 2, 1.0, 3), ("b", 2, 1.0, 1)) == ["b", "a"]


def test_gdsf_lets_old_merits_fade() -> None:
    gdsf = make("gdsf")
    gdsf.insert(key("old"), 1, 1.0, 0.0)
    for _ in range(4):
        gdsf.hit(key("old"), 0.0)  # worth 5
    for n in range(5):
        gdsf.insert(key(f"m{n}"), 1, 1.0, float(n))
        victim = next(gdsf.victims(float(n)))
        gdsf.chosen(victim)
        gdsf.remove(victim)
    assert victim == key("old")


def test_a_ghost_of_s3fifo_comes_back_to_the_main_queue() -> None:
    s3 = make("s3fifo")
    for model in "abc":
        s3.insert(key(model), 1, 1.0, 0.0)
    assert next(s3.victims(0.0)) == key("a")
    s3.chosen(key("a"))
    s3.remove(key("a"))
    s3.insert(key("a"), 1, 1.0, 1.0)
    assert list(s3.victims(1.0)) == [key("b"), key("c"), key("a")], "it is kept, though it came last and was not hit"
    s3.remove(key("b"))  # evicted by hand: no ghost
    s3.insert(key("b"), 1, 1.0, 2.0)
    assert list(s3.victims(2.0)) == [key("c"), key("b"), key("a")]


def test_ghosts_are_bounded() -> None:
    s3 = S3Fifo()
    for n in range(5000):
        s3.insert(key(f"m{n}"), 1, 1.0, float(n))
        if n >= 10:
            victim = next(s3.victims(float(n)))
            s3.chosen(victim)
            s3.remove(victim)
    assert len(s3._ghosts) <= 10


def test_random_takes_each_with_the_same_chance_and_another_after_each_victim() -> None:
    policy = make("random")
    keys = [key(model) for model in MODELS]
    for k in keys:
        policy.insert(k, 1, 1.0, 0.0)
    counts = dict.fromkeys(keys, 0)
    many = 3000
    for _ in range(many):
        victim = next(policy.victims(1.0))
        counts[victim] += 1
        policy.chosen(victim)
        policy.remove(victim)
        policy.insert(victim, 1, 1.0, 1.0)
    expected = many / len(keys)
    spread = sum((n - expected) ** 2 / expected for n in counts.values())
    assert spread < 31.3, "chi-square with 11 degrees of freedom is larger than that once in a thousand"


def test_policies_are_made_by_any_of_their_names() -> None:
    assert all(type(make(name)) is POLICIES[name] for name in POLICIES)
    assert {alias: make(alias).name for alias in ALIASES} == {"lcu": "lfu", "all": "flush"}
    with pytest.raises(UsageError) as raised:
        make("lur")
    assert "'lur'" in str(raised.value) and "lru, lfu, fifo" in raised.value.hint


def test_a_few_policies_have_rules_of_their_own() -> None:
    def those(attribute: str, value: bool) -> list[str]:
        return [name for name, policy in POLICIES.items() if getattr(policy, attribute) is value]

    assert (those("evicts", False), those("sweeps", True), those("eager", True)) == (["never"], ["flush"], ["eager"])


# ---- the sorted set


class Counted(tuple[int, ...]):
    """An entry that counts how often it is compared."""

    compared = 0

    def __lt__(self, other: tuple[int, ...]) -> bool:
        Counted.compared += 1
        return super().__lt__(other)


@given(st.lists(st.tuples(st.sampled_from("+-"), st.integers(0, 30)), max_size=200), st.integers(0, 30))
def test_an_ordered_set_is_what_sorting_gives(steps: list[tuple[str, int]], start: int) -> None:
    ordered, plain = Ordered[tuple[int]](), set[int]()
    for what, n in steps:
        if what == "+" and n not in plain:
            ordered.add((n,))
            plain.add(n)
        elif what == "-" and n in plain:
            ordered.remove((n,))
            plain.remove(n)
        assert list(ordered) == [(n,) for n in sorted(plain)]
        assert len(ordered) == len(plain) and bool(ordered) == bool(plain)
    assert list(ordered.since((start,))) == [(n,) for n in sorted(plain) if n >= start]


def test_an_ordered_set_of_many_compares_little_and_holds_no_small_blocks() -> None:
    ordered, many = Ordered[Counted](), 20 * BLOCK
    numbers = [n * 7919 % many for n in range(many)]
    for n in numbers:
        ordered.add(Counted((n,)))
    assert list(ordered) == [(n,) for n in range(many)]
    Counted.compared = 0
    for n in numbers[:100]:
        ordered.remove(Counted((n,)))
        ordered.add(Counted((n,)))
    assert Counted.compared <= 100 * 3 * 15  # three searches of some log2(5120) < 13 comparisons, and a few more
    for n in range(many):
        if n % 64:
            ordered.remove(Counted((n,)))
    assert list(ordered) == [(n,) for n in range(0, many, 64)]
    assert len(ordered._blocks) <= 4
    assert all(block and block[-1] == last for block, last in zip(ordered._blocks, ordered._lasts, strict=True))
