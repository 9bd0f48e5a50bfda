"""TensorBoard gets images of all samples, clips of sound, and texts."""

from pathlib import Path

import pytest
import torch

from gan_lab.data.media import Sheet
from gan_lab.training.loggers.files import TensorBoard

PICTURE = torch.zeros(3, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("media_type", "media", "tags"),
    [
        ("image/png", (), {"images": ["samples"]}),
        (
            "audio/wav",
            (b"RIFFone", b"RIFFtwo"),
            {"images": ["samples"], "audio": ["samples/0", "samples/1"]},
        ),
        ("text/plain", (b"one", b"<two>"), {"tensors": ["samples/text_summary"]}),
    ],
)
def test_what_is_logged(
    tmp_path: Path, media_type: str, media: tuple[bytes, ...], tags: dict[str, list[str]]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoard(run_dir=tmp_path)
    logger.log_sheet("samples", Sheet(image=PICTURE, media=media, media_type=media_type), 2.2)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    found = {kind: names for kind, names in events.Tags().items() if names}
    assert found == tags
    for number, clip in enumerate(media if "audio" in tags else ()):
        (event,) = events.Audio(f"samples/{number}")
        assert (event.encoded_audio_string, event.content_type) == (clip, media_type)
        assert event.step == 2
    if "tensors" in tags:
        (event,) = events.Tensors("samples/text_summary")
        assert event.tensor_proto.string_val[0].decode() == "    one\n    <two>"
