"""Runs side by side: read from their folders, drawn into one page and one image."""
