"""Overrides that make models small."""

BIGAN = (
    "model=bigan",
    "batch_size=4",
    "model.generator.width=4",
    "model.generator.encoder_width=4",
    "model.generator.z_dim=6",
    "model.discriminator.width=4",
    "model.discriminator.code_width=8",
)

STYLEGANS = {
    "stylegan2": (
        "model.generator.z_dim=8",
        "model.generator.w_dim=8",
        "model.generator.mapping_layers=2",
        "model.generator.channel_base=64",
        "model.generator.channel_max=8",
        "model.discriminator.channel_base=64",
        "model.discriminator.channel_max=8",
    ),
    "stylegan3": (
        "model.generator.z_dim=8",
        "model.generator.w_dim=8",
        "model.generator.channel_base=64",
        "model.generator.channel_max=8",
        "model.generator.num_layers=4",
        "model.generator.margin=2",
        "model.discriminator.channel_base=64",
        "model.discriminator.channel_max=8",
    ),
}

GAT = (
    "model.generator.z_dim=8",
    "model.generator.depth=4",
    "model.generator.width=16",
    "model.generator.heads=2",
    "model.generator.patch=4",
    "model.discriminator.label_dim=8",
)

FASTGAN = (
    "model.generator.z_dim=8",
    "model.generator.width=4",
    "model.discriminator.width=4",
)
