"""Terms beside the loss, one file each; they know nothing of the loop."""
