"""A local web page to explore trained generators."""
