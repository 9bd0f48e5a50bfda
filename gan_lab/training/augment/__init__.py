"""What stands between images and the discriminator."""
