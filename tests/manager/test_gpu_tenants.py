"""GPUs in system scope: their memory goes to members of one group, and to nobody by any other way."""

from __future__ import annotations

import pytest
from helpers import capabilities
from helpers.service import serving
from helpers.tenants import ANNA, BERT, CARA, TEAM

from trims.wire.messages import Attach, Attached, Evict, Pin, Refused, Result, Status, Warm

pytestmark = capabilities.needs_root


@pytest.fixture
def serve(gpus, runtime, home, managers):
    yield from serving(runtime, home, managers)


def test_members_of_the_group_attach_and_nobody_else(gpus, serve) -> None:
    service = serve(gpu_group=str(TEAM))
    service.put("open", ANNA, None, 0o644, seed=1)
    service.put("secret", ANNA, None, None, seed=2)
    anna, bert, cara = (service.user(uid) for uid in (ANNA, BERT, CARA))
    for user in (anna, bert):
        answer = user.ask(Attach, ref="open", place="gpu")
        assert isinstance(answer, Attached) and answer.place == gpus.place(0)
    refused = cara.ask(Attach, ref="open", place="gpu")
    assert isinstance(refused, Refused) and refused.code == "not-permitted" and "gpu.group" in refused.why
    assert isinstance(cara.ask(Attach, ref="open"), Attached)
    for place in ("gpu", gpus.place(1)):  # what may not be read does not exist, on a GPU either
        real, fake = (cara.ask(Attach, ref=ref, place=place) for ref in ("secret", "sesame"))
        assert (real.code, real.what.replace("secret", "sesame"), real.why) == (fake.code, fake.what, fake.why)
        assert bert.ask(Attach, ref="secret", place=place).code == "no-such-model"


def test_without_a_group_only_the_services_own_user_has_gpu_memory(gpus, serve) -> None:
    service = serve()
    service.put("open", ANNA, TEAM, 0o644)
    assert service.user(ANNA).ask(Attach, ref="open", place="gpu").code == "not-permitted"
    with service.manager.control() as control:
        assert control.request("warm", ref="open", place="gpu")[0]["outcome"] == "warmed"


def test_who_may_not_attach_may_warm_and_evict_what_is_theirs(gpus, serve) -> None:
    service = serve()
    service.put("mine", CARA, None, None)
    service.put("open", ANNA, None, 0o644, seed=5)
    cara = service.user(CARA)
    assert isinstance(cara.ask(Warm, ref="mine", place="gpu"), Result)
    assert isinstance(cara.ask(Pin, ref="open", place="gpu"), Result)
    (item,) = cara.ask(Evict, ref="mine", place="gpu", to="host").items
    assert (item["ref"], item["outcome"]) == ("mine:latest", "evicted")
    assert cara.ask(Evict, ref="open", place="gpu").code == "not-permitted"
    assert gpus.place(0) in cara.ask(Status).items[0]["gpus"]


def test_a_group_that_is_not_there_stops_the_start(gpus, serve) -> None:
    from trims.errors import UsageError

    with pytest.raises(UsageError, match=r"gpu\.group"):
        serve(gpu_group="nobodys")
