"""Memory that other processes can map: one module a kind of place, one interface."""
