"""Published weights, exports, model cards and the hub."""

from gan_lab.weights.published import from_published as from_published
