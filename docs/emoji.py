r"""The data set of emoji in docs/results.md, and the network that its metrics look through.

python docs/emoji.py images emoji                  # emoji/train and emoji/val, PNG files of 64x64 pixels
python docs/emoji.py images emoji100 --limit 100   # 100 of the same training images, all of val
python docs/emoji.py features emoji emoji.pt       # a network that metrics look through, in two minutes of one thread
python docs/emoji.py table emoji emoji.pt runs/fastgan runs/stylegan2 --sheet sheet.png

It is one for features=module as well:
PYTHONPATH=docs gan-lab evaluate run=runs/fastgan protocol=kid5k features=module features.name=emoji \
    features.module._target_=emoji.EmojiNet features.weights=emoji.pt trust=[emoji]

The images are of Noto Color Emoji (Debian: apt install fonts-noto-color-emoji), Copyright Google Inc., under the SIL
Open Font License 1.1, which they stay under: make them, and do not commit them.
"""

import argparse
import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

import gan_lab
from gan_lab.data.image_folder import ImageFolder
from gan_lab.data.images import to_float
from gan_lab.data.media import grid
from gan_lab.metrics.functional import frechet_distance, nearest, precision_recall

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
STRIKE = 109  # pixels an em, the one size of the font's bitmaps: 136x128
VAL_EVERY = 5
WIDTH = 64  # of the features, well below the number of held-out images


def is_emoji(code: int) -> bool:
    """Whether a code point has an image of its own: no key caps, letters of flags, skin tones or joiners."""
    letters = 0x1F1E6 <= code <= 0x1F1FF
    tones = 0x1F3FB <= code <= 0x1F3FF
    return 0xA9 <= code < 0xE0000 and not letters and not tones and code not in (0x200D, 0x20E3)


def draw(font: ImageFont.FreeTypeFont, code: int) -> Image.Image:
    """Draw a code point in the middle of a white square of 64 pixels."""
    side = 136
    canvas = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(canvas).text((0, 4), chr(code), font=font, embedded_color=True, anchor="lt")
    return canvas.resize((64, 64), Image.Resampling.LANCZOS)


def write_images(out: Path, limit: int | None) -> None:
    """Write every image once; the order, and so the split, is that of hashes of the code points."""
    codes = [code for code in TTFont(FONT, lazy=True).getBestCmap() if is_emoji(code)]
    codes.sort(key=lambda code: hashlib.sha256(f"{code:x}".encode()).digest())
    font = ImageFont.truetype(FONT, STRIKE)
    blank = Image.new("RGB", (64, 64), "white").tobytes()
    seen = {blank}
    split: dict[str, list[tuple[int, Image.Image]]] = {"train": [], "val": []}
    for code in codes:
        image = draw(font, code)
        if image.tobytes() in seen:  # some code points share an image
            continue
        seen.add(image.tobytes())
        name = "train" if len(seen) % VAL_EVERY else "val"
        split[name].append((code, image))
    split["train"] = split["train"][:limit]
    for name, images in split.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        for code, image in images:
            image.save(out / name / f"{code:05x}.png")
        print(f"{out / name}: {len(images)} images")


class EmojiNet(nn.Module):
    """Features [N, 64] of images [N, 3, 64, 64] in [-1, 1]: four convolutions and a layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 24), (24, 48), (48, 96), (96, 96)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 16, WIDTH))

    def forward(self, images: Tensor) -> Tensor:
        """Features [N, 64]."""
        found: Tensor = self.layers(images)
        return found


def jittered(images: Tensor) -> Tensor:
    """Move, turn, stretch and recolor images [N, 3, H, W], each with its own random parameters."""
    count = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(count, *shape).uniform_(low, high)

    angle, size = uniform(-0.2, 0.2), uniform(0.85, 1.15)
    turns = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    theta = torch.cat([turns * size[:, None, None], uniform(-0.12, 0.12, 2, 1)], 2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    gains, shifts = uniform(0.8, 1.2, 3, 1, 1), uniform(-0.1, 0.1, 3, 1, 1)
    return moved * gains + shifts + 0.03 * torch.randn_like(moved)


def train_features(root: Path, weights: Path, *, epochs: int = 40, batch_size: int = 64) -> None:
    """Learn to tell every image, held-out ones too, from all others under jitter, and keep the features.

    Exemplar networks: Dosovitskiy et al. 2014, https://arxiv.org/abs/1406.6909.
    """
    sets = [ImageFolder(root=str(root), split=split) for split in ("train", "val")]
    images = to_float(torch.cat([data.__getitems__(range(len(data))).real for data in sets]))
    torch.manual_seed(0)
    net, head = EmojiNet(), nn.Linear(WIDTH, len(images))
    weights_of = [*net.parameters(), *head.parameters()]
    steps = epochs * len(images) // batch_size
    optimizer = torch.optim.AdamW(weights_of, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for step in range(steps):
        chosen = torch.randint(len(images), (batch_size,))
        logits = head(F.leaky_relu(net(jittered(images[chosen])), 0.1))
        loss = F.cross_entropy(logits, chosen, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            right = (logits.argmax(1) == chosen).float().mean()
            print(f"step {step + 1} of {steps}: {right:.0%} of a batch are recognized")
    torch.save(net.state_dict(), weights)


COLUMNS = 14
NUM_FAKE = 1_105  # as many as there are training images


@torch.no_grad()
def write_table(root: Path, weights: Path, runs: list[Path], sheet: Path) -> None:
    """Measure runs at their end, and draw the first images of each above the nearest training images.

    Distances are of as many generated images as the whole training set has, to the held-out ones; the training images
    themselves are the reference. Precision, recall and nearest neighbors are of the training images, and the held-out
    ones are what to read them by.
    """
    net = EmojiNet()
    net.load_state_dict(torch.load(weights, weights_only=True))
    net.eval()

    def features(stored: Tensor) -> Tensor:
        return torch.cat([net(to_float(part)) for part in stored.split(64)])

    sets = [ImageFolder(root=str(root), split=split) for split in ("train", "val")]
    train, val = (data.__getitems__(range(len(data))).real for data in sets)
    real, held_out = features(train), features(val)
    print("| run | kimg | distance | precision | recall | to the nearest training image |")
    print("|---|---|---|---|---|---|")

    def row(name: str, kimg: str, distance: Tensor, fake: Tensor) -> Tensor:
        precision, recall = precision_recall(real, fake)
        far, indices = nearest(fake, real)
        numbers = f"{distance:.1f} | {precision:.2f} | {recall:.2f} | {far.median():.1f}"
        print(f"| {name} | {kimg} | {numbers} |")
        return indices

    row("held-out images", "", frechet_distance(held_out, real), held_out)
    rows = [val[:COLUMNS]]
    for run in runs:
        gan = gan_lab.load(run, checkpoint="last")
        made = gan.spec.decode(gan.sample(NUM_FAKE, seed=0))
        fake = features(made)
        indices = row(run.name, f"{gan.kimg:.0f}", frechet_distance(held_out, fake), fake)
        rows += [made[:COLUMNS], train[indices[:COLUMNS]]]
    pixels = grid(torch.cat(rows), COLUMNS).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).quantize(255).save(sheet, optimize=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    images = commands.add_parser("images")
    images.add_argument("out", type=Path)
    images.add_argument("--limit", type=int)
    features = commands.add_parser("features")
    features.add_argument("root", type=Path)
    features.add_argument("weights", type=Path)
    table = commands.add_parser("table")
    table.add_argument("root", type=Path)
    table.add_argument("weights", type=Path)
    table.add_argument("runs", type=Path, nargs="+")
    table.add_argument("--sheet", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "images":
        write_images(arguments.out, arguments.limit)
    elif arguments.command == "features":
        train_features(arguments.root, arguments.weights)
    else:
        write_table(arguments.root, arguments.weights, arguments.runs, arguments.sheet)


if __name__ == "__main__":
    main()
