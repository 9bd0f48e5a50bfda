"""TensorBoard gets images of all samples, clips of sound, texts, the configuration, advice and the best values."""

from pathlib import Path

import pytest
import torch

from gan_lab.data.media import Sheet
from gan_lab.training.loggers.files import JsonLogger, TensorBoard

IMAGE = torch.zeros(3, 8, 8, dtype=torch.uint8)


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
    logger.log_sheet("samples", Sheet(image=IMAGE, media=media, media_type=media_type), 2.2)
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


def test_configuration_advice_and_best_values(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    file = JsonLogger(run_dir=tmp_path)
    first = TensorBoard(run_dir=tmp_path)
    first.log_hyperparams({"seed": 0, "model": {"generator": {"width": 8}}})
    for kimg, value in ((1.0, 3.0), (2.0, 4.0), (3.0, 1.0)):
        file.log_metrics({"kimg": kimg, "metrics/fid": value})
        first.log_metrics({"kimg": kimg, "metrics/fid": value})
    first.log_advice(["at 1 kimg: a", "at 2 kimg: b"], 2.0)
    first.finalize("success")
    second = TensorBoard(run_dir=tmp_path)
    second.log_hyperparams({"seed": 0, "model": {"generator": {"width": 8}}})
    second.rewind(2.0)
    second.log_metrics({"kimg": 3.0, "metrics/fid": 2.0})
    second.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    best = [(event.step, event.value) for event in events.Scalars("best/fid")]
    assert best == [(1, 3), (3, 2)], "what lay after the checkpoint does not count"
    texts = {
        name: events.Tensors(f"{name}/text_summary")[-1].tensor_proto.string_val[0].decode()
        for name in ("config", "advice")
    }
    assert texts["advice"].strip() == "at 2 kimg: b"
    assert "width: 8" in texts["config"]
    found = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(found).session_start_info.hparams
    assert settings["model.generator.width"].number_value == 8
