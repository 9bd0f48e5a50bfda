"""Writing a generator as a folder that others can draw from: weights, description, programs and model card."""
