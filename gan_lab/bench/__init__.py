"""What gan-lab bench measures: the phases of a training step, the machine's peak, the loop, data and metrics."""
