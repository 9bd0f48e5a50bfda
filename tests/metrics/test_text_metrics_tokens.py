import torch

from gan_lab.metrics.text_metrics import Tokens


def test_features_are_the_characters() -> None:
    tokens = Tokens()
    tokens.check((5,), "lines")
    tokens.load(torch.device("cpu"))
    stored = torch.randint(0, 300, (700, 5)).to(torch.int16)
    assert torch.equal(tokens(stored, ["tokens"])["tokens"].long(), stored.long())
    assert tokens.outputs == {"tokens": 5}
