"""What a GPU machine is asked once, by `scripts/gpu-check`: open questions, tests, isolation, figures, the paper's map.

Every stage is a list of items (`bench.gpu.stages`), each a process of its own with a limit of its own, so that a fault,
a hang or a missing library costs that item alone; each result is kept at once. Nothing here needs a network.
"""
