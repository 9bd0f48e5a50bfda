"""Augmentations of images before the discriminator."""
