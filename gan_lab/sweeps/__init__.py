"""Sweeps: many runs by one command, each in its own process, and their outcomes."""
