"""The command line of trims. Everything a person types; nothing a program needs."""
