"""Reading published weights into the networks of this package."""

from gan_lab.weights.readers import from_published as from_published
