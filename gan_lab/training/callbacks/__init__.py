"""What happens beside the steps: logs, samples, evaluation, checkpoints, progress; all by the clock of images seen."""
