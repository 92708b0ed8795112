"""What was found, in words: a line or a few for each item, for the terminal and summary.txt."""

from __future__ import annotations

from typing import Any

from bench.harness import show


def item(stage: str, name: str, found: dict[str, Any]) -> list[str]:
    head = f"{stage}:{name} ({found['seconds']:.1f} s)"
    if found["outcome"] != "done":
        return [f"{head} {found['outcome'].upper()}: {found['why']}", *_indented(found.get("log", [])[-6:])]
    result = found["result"]
    if "question" in result:
        mark = "" if result["wanted"] in ("", result["answer"]) else f"   NOT AS EXPECTED ({result['wanted']})"
        return [f"{head} {result['question']} {result['answer'].upper()}{mark}"]
    if "tests" in result:
        counts = ", ".join(f"{number} {kind}" for kind, number in result["counts"].items())
        told = [f"{t['outcome']}: {t['name']}: {t['why']}" for t in result["tests"] if t["outcome"] != "passed"]
        return [f"{head} {counts}", *_indented(told[:20])]
    lines = [line for row in result.get("rows", ()) for line in _row(row)]
    return [head, *_indented([*lines, *result.get("notes", ())])]


def _row(row: dict[str, Any]) -> list[str]:
    verdict = {None: "", True: ", met", False: ", NOT MET"}[row["met"]]
    target = f"   (target: {row['target']}{verdict})" if row["target"] else ""
    lines = [f"{row['what']}: {_figure(row['trims'])}{target}"]
    for label, figure in row["beside"].items():
        ratio = row["ratios"].get(label)
        lines.append(f"    {label}: {_figure(figure)}" + (f"   {ratio:.3g}x of trims" if ratio else ""))
    return lines


def _figure(figure: dict[str, Any]) -> str:
    spread = f" (p99 {show(figure['p99'], figure['unit'])}, n {figure['n']})" if figure["n"] > 2 else ""
    return show(figure["p50"], figure["unit"]) + spread


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def summary(documents: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for document in documents:
        device = document["device"]
        if not lines:
            about = f"driver {device.get('driver', '-')}, CUDA {device.get('cuda', '-')}"
            lines += [f"{device['name']}, {show(device['nbytes'], 'B')}, {about}; {document['machine']['cpu']}"]
            lines += [f"note: {note}" for note in (*device["notes"], *document["notes"])]
            if document["simulated"]:
                lines.append("SIMULATED: nothing below says anything about a GPU")
        lines += ["", f"== {document['stage']}, {document['made']}" + ("" if document["complete"] else ", INCOMPLETE")]
        for name, found in document["items"].items():
            lines += item(document["stage"], name, found)
    return lines
