"""What a machine full of models is asked for: workloads, real and simulated runs of them, and what comes of it."""
