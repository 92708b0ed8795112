"""A program that forks while another of its threads loads for the first time: the child is given whole modules."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from trims.redirect import deciding, forking

SLOW = "import sys\nsys.trims_test_began.set()\nassert sys.trims_test_go.wait(20)\nvalue = 5\n"


def test_a_fork_waits_for_the_imports_of_other_threads(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "slow_to_import.py").write_text(SLOW)
    began, go = threading.Event(), threading.Event()
    monkeypatch.setattr(sys, "trims_test_began", began, raising=False)
    monkeypatch.setattr(sys, "trims_test_go", go, raising=False)
    monkeypatch.syspath_prepend(home)
    monkeypatch.setattr(forking, "_PAUSE", 0)
    real = forking._importing
    monkeypatch.setattr(forking, "_importing", lambda threads: (real(threads), go.set())[0])  # the fork looked

    def load() -> None:
        deciding.guard(lambda: __import__("slow_to_import"))

    thread = threading.Thread(target=load)
    thread.start()
    assert began.wait(20) and len(forking.inside) == 1
    child = os.fork()
    if not child:
        signal.alarm(20)  # it would wait for ever
        os._exit(0 if __import__("slow_to_import").value == 5 and not forking.inside else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()
    assert not forking.inside and sys.modules.pop("slow_to_import").value == 5


def test_a_fork_does_not_wait_for_an_import_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "_PATIENCE", 0.01)
    monkeypatch.setattr(forking, "_importing", lambda threads: True)
    monkeypatch.setattr(forking, "inside", {-1})
    child = os.fork()
    if not child:
        os._exit(len(forking.inside))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
