"""A local page on which trained generators are played with."""
