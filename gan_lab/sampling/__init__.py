"""Use of a trained generator: points of its latent spaces, ways between them, pictures and videos."""
