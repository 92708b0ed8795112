"""The study that chose the default policy: its streams are what they are called, its averages are right."""

import json

import numpy as np
import pytest

from bench import policies, policy_cells
from trims.residency.policies import POLICIES
from trims.workload.cost import ASSUMED
from trims.workload.models import total_bytes

PAPER, TAIL = policy_cells.catalogues()


def test_the_catalogues_are_the_papers_models_and_a_thousand_with_a_long_tail():
    assert len(PAPER.models) == 37 and len(TAIL.models) == 1000
    nbytes = np.array([model.nbytes for model in TAIL.models])
    assert abs(np.log(nbytes).std() - 1.0) < 0.05 and nbytes.max() > 15 * np.median(nbytes)
    assert policy_cells.catalogues()[1] == TAIL


def test_one_in_three_of_a_scan_is_asked_for_once_and_the_others_stay_as_they_were():
    scan, plain = (policy_cells.draw(PAPER, workload, 8, 2) for workload in ("scan", "zipf:s=1"))
    once = scan.model >= len(PAPER.models)
    assert 0.25 < once.mean() < 0.42 and scan.clients == 8
    np.testing.assert_array_equal(scan.model[~once], plain.model[~once])
    assert set(scan.counts()[len(PAPER.models) :]) == {1}
    sizes = {model.nbytes for model in PAPER.models}
    assert {model.nbytes for model in scan.models} == sizes


def test_popularity_shifts_ten_times():
    stream = policy_cells.draw(TAIL, "shift", 8, 1)
    part = len(stream) // 10
    firsts = [int(np.bincount(stream.model[i : i + part]).argmax()) for i in range(0, len(stream), part)]
    assert firsts == [100 * i for i in range(10)]


def test_two_models_by_turns_never_fit_together():
    stream, budget = policy_cells.alternating(4, 50, 1)
    assert max(model.nbytes for model in stream.models) < budget < total_bytes(stream.models)
    assert set(stream.model) == {0, 1} and stream.clients == 4


def test_a_cell_is_the_same_again_and_no_policy_passes_the_bound():
    quick = policy_cells.catalogues(quick=True)[0]
    cell, again = (policy_cells.run_cell(quick, "zipf:s=1", 0.25, 1, ASSUMED) for _ in range(2))
    assert json.dumps(cell) == json.dumps(again)
    for name in POLICIES:
        hits, byte_hits = cell["figures"]["hit_rate"][name], cell["figures"]["byte_hit_rate"][name]
        assert all(hit <= top for hit, top in zip(hits, cell["limits"]["bound"], strict=True))
        assert all(hit <= top for hit, top in zip(byte_hits, cell["limits"]["byte_bound"], strict=True))


def cell(name, means):
    figures = {f: {policy: [1.0, 1.0] for policy in POLICIES} for f in policy_cells.FIGURES}
    figures["mean"] = {policy: [8.0, 8.0] for policy in POLICIES} | means
    return {"catalogue": "paper", "workload": name, "budget": 0.1, "clients": 1, "figures": figures,
            "limits": {"bound": [2.0, 2.0]}}  # fmt: skip


def test_a_standing_is_the_geometric_mean_of_ratios_to_the_best():
    cells = [cell("a", {"lru": [4.0, 4.0], "lfu": [2.0, 2.0]}), cell("b", {"lru": [1.0, 1.0], "lfu": [4.0, 4.0]})]
    lru, lfu = (policies.standing(cells, name, 2) for name in ("lru", "lfu"))
    assert lru["best"] == pytest.approx(2**0.5) and lfu["best"] == pytest.approx(2.0)
    assert (lru["worst"], lfu["worst"]) == (2.0, 4.0) and lfu["where"].startswith("paper, b")
    assert lfu["lru"] == pytest.approx((2**0.5, 2**0.5)) and lfu["of_bound"] == 0.5


def test_the_spread_is_over_seeds():
    cells = [cell("a", {"lru": [4.0, 4.0], "lfu": [2.0, 8.0]})]
    assert policies.standing(cells, "lfu", 2)["lru"] == pytest.approx((0.5, 2.0))


def test_a_page_without_a_place_for_a_table_is_refused():
    with pytest.raises(SystemExit, match="no place for 'setting'"):
        policies.page("# nothing here", {})
