"""gan-lab bench: the phases of a training step, the device's peak, the loop, data and metrics."""
