"""Use of a trained generator: latents, images, interpolation, mixing, directions, projection, videos."""
