"""The protocol, pure: bytes in, messages out. No socket, thread or clock."""
