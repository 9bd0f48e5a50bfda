"""Compare runs: read their folders, and write one page and one image."""
