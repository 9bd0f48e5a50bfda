"""What is known about the images of a data set besides their pixels."""

MAX_LABEL = 999_999  # a larger one is an identifier or damage: each class costs memory
