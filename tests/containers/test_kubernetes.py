"""The manifests: valid for Kubernetes, of one mind with each other, and their commands run."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import cli
from helpers.cli import TRIMS

FILES = sorted((Path(__file__).parents[2] / "deploy" / "kubernetes").glob("*.yaml"))
VERSION = "1.35"


def documents() -> dict[str, Any]:
    return {found["kind"]: found for path in FILES for found in yaml.safe_load_all(path.read_text())}


def test_the_manifests_are_valid() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for document in documents().values():
        validate.validate(document, VERSION, strict=True)
    wrong = documents()["DaemonSet"]
    wrong["spec"]["template"]["spec"]["hostPid"] = True
    with pytest.raises(validate.ValidationError):
        validate.validate(wrong, VERSION, strict=True)


def test_client_and_manager_mean_the_same_directory() -> None:
    found = documents()
    manager, client = found["DaemonSet"]["spec"]["template"]["spec"], found["Pod"]["spec"]
    paths = {volume["hostPath"]["path"] for volume in (manager["volumes"][0], client["volumes"][0])}
    mounts = {pod["containers"][0]["volumeMounts"][0]["mountPath"] for pod in (manager, client)}
    assert paths == mounts == {"/run/trims"} and client["containers"][0]["volumeMounts"][0]["readOnly"]
    assert manager["nodeSelector"] == client["nodeSelector"] and manager["hostPID"]
    # Only the one that gives the directories away is root, and it is nothing but that.
    users = {c["name"]: c["securityContext"]["runAsUser"] for c in manager["initContainers"] + manager["containers"]}
    assert users == {"directories": 0, "store": 64500, "manager": 64500}


def test_the_commands_run(home: Path) -> None:
    """On this machine, with its directories elsewhere, in the order in which Kubernetes runs them."""
    pod = documents()["DaemonSet"]["spec"]["template"]["spec"]
    (home / "run-trims").mkdir(mode=0o755)

    def here(text: str) -> str:
        return text.replace("/var/lib/trims", str(home)).replace("/run/trims", str(home / "run-trims"))

    def command(of: dict[str, Any]) -> list[str]:
        assert of["command"][0] == "trims"
        return [here(word) for word in of["command"][1:]]

    manager = pod["containers"][0]
    env = {item["name"]: here(item["value"]) for item in manager["env"]}
    env = {**os.environ, **env, "TRIMS_HOST_BUDGET": "64MiB", "HOME": str(home)}
    for _ in range(2):  # each start of the pod
        cli.ok(*command(pod["initContainers"][1]), "-q", env=env)
    with subprocess.Popen([*TRIMS, *command(manager)], env=env, stderr=subprocess.PIPE, text=True) as served:
        try:
            assert served.stderr is not None
            cli.ok(*command(manager["startupProbe"]["exec"])[:-1], "60s", "-q", env=env)
            for probe in ("readinessProbe", "livenessProbe"):
                cli.ok(*command(manager[probe]["exec"]), "-q", env=env)
            served.send_signal(signal.SIGTERM)
            assert served.wait(float(pod["terminationGracePeriodSeconds"])) == 0
        finally:
            served.kill()
    assert cli.run(*command(manager["readinessProbe"]["exec"])[:-1], "0s", env=env).returncode != 0
