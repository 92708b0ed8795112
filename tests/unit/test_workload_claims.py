"""The claims: each figure comes from the report, and no verdict is kinder than the figure."""

from __future__ import annotations

import json

import pytest
from helpers import reports

from trims.workload import claims
from trims.workload.claims import CANNOT, MET, NOT_MET, Claim
from trims.workload.models import ModelSpec
from trims.workload.report import Report


def found(report: Report) -> dict[str, Claim]:
    return {claim.stated.key: claim for claim in claims.claims(report)}


def test_every_claim_of_the_paper_has_a_line() -> None:
    assert list(found(reports.report())) == [
        "small-latency", "large-latency", "throughput", "oversubscription", "oversubscribed-batch",
        "oversubscribed-penalty", "sweet-spot", "bottleneck",
    ]  # fmt: skip


def test_figures_and_verdicts() -> None:
    by = found(reports.report())
    assert by["small-latency"].value == pytest.approx(30.0) and by["small-latency"].verdict == MET
    assert "(vgg)" in by["small-latency"].here and "11x on average" in by["small-latency"].here
    assert by["large-latency"].value == pytest.approx(210.0) and by["large-latency"].verdict == MET
    assert by["throughput"].value == pytest.approx(7.407) and by["throughput"].verdict == NOT_MET
    assert (by["oversubscription"].value, by["oversubscription"].verdict) == (2.0, MET)
    assert by["oversubscribed-batch"].value == pytest.approx(0.889)
    assert by["oversubscribed-penalty"].verdict == MET and by["oversubscribed-penalty"].value == 0.1
    assert by["bottleneck"].value == pytest.approx(0.85) and by["bottleneck"].verdict == MET
    spot = by["sweet-spot"]
    assert spot.value == 0.7 and spot.verdict == MET and "70% to 100%" in spot.here
    assert "natively alone, 100% with 1 client and 70% with 10" in spot.here


def test_the_page_cache_of_the_configuration_is_the_one_compared_with() -> None:
    warm = reports.report(configuration={"cache": "warm"})
    assert claims.gains(warm, "small") == pytest.approx({"squeeze": 2.0, "vgg": 4.0})
    assert found(warm)["small-latency"].verdict == NOT_MET
    assert claims.gains(reports.report(), "small", "load", "ready")["vgg"] == pytest.approx(2.8 / 0.45)


def test_what_was_not_measured_cannot_be_shown() -> None:
    empty = reports.report(cells=(), alone=())
    assert {claim.verdict for claim in claims.claims(empty)} == {CANNOT}
    assert all(claim.value is None for claim in claims.claims(empty))
    by = found(reports.report(cells=(reports.cell(ratio=None, penalty=None),)))
    assert by["throughput"].verdict == by["oversubscribed-penalty"].verdict == CANNOT


def test_failed_requests_and_slow_batches_are_not_met() -> None:
    by = found(reports.report(cells=(reports.cell(trims=reports.summary(failed=1), ratio=0.9, penalty=0.21),)))
    assert by["oversubscription"].verdict == NOT_MET
    assert by["oversubscribed-penalty"].verdict == NOT_MET
    assert by["sweet-spot"].value == 0.0 and by["sweet-spot"].verdict == NOT_MET


def test_caveats_say_scale_and_stand_ins() -> None:
    assert found(reports.report())["small-latency"].caveat == ""
    assert "one pass over the weights" in found(reports.report())["bottleneck"].caveat
    small = reports.report(configuration={"cache": "cold", "scale": 0.25})
    assert "0.25 of the paper's sizes" in found(small)["small-latency"].caveat


def test_json_and_markdown() -> None:
    made = claims.claims(reports.report())
    assert json.loads(json.dumps([claim.to_dict() for claim in made]))[0]["verdict"] == MET
    text = claims.to_markdown(made)
    assert (
        len(text.splitlines()) == len(made) + 4
        and claims.HOST in text
        and text.count("**met**") == sum(c.verdict == MET for c in made)
    )


def test_the_budget_of_the_paper_is_half_of_the_zoo() -> None:
    models = [ModelSpec("a", 30, 1), ModelSpec("b", 31, 1)]
    assert claims.oversubscribed(models) == 31
    assert claims.oversubscribed([ModelSpec("a", 100, 1), ModelSpec("b", 1, 1)]) == 100
