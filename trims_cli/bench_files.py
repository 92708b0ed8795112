"""The picture of a workload's report, as one file."""

from __future__ import annotations

import os

from trims.workload import report, report_file


def draw(kept: report.Report, path: str) -> None:
    """The map as one picture, in the form that the file's name says."""
    from trims.workload import pictures

    form = os.path.splitext(path)[1].lstrip(".").lower()
    report_file.write(path, pictures.render(kept, pictures.names(kept)[0], form))
