"""The residency manager: one process that owns the regions and answers on a socket."""
