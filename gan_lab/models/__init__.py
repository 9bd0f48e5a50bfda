"""One file per architecture: its generator, its discriminator and its LightningModule."""
