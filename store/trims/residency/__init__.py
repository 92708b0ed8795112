"""The brain, pure: events in, effects out. No clock, thread, file or socket; the caller passes the time."""
