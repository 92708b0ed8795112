"""The models of the paper: their table, and files that stand for them.

A file is the true architecture with random weights where the graph is known, else synthetic tensors of the same count
and total, marked so. All follows from a seed.
"""

from __future__ import annotations

from trims.workload.zoo.build import Progress, build, sources
from trims.workload.zoo.table import ZooModel, large_models, paper_models

__all__ = ["Progress", "ZooModel", "build", "large_models", "paper_models", "sources"]
