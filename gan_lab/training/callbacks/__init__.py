"""Callbacks: logs, samples, evaluation, checkpoints, progress; all scheduled by images seen."""
