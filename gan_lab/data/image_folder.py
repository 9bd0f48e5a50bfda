"""A folder of images, with classes by a table or by sub-folders, or none."""

from collections.abc import Sequence
from pathlib import Path

from gan_lab.data.decoding import FORMATS, MAX_MEGAPIXELS, regular_file
from gan_lab.data.encoded import EncodedImages
from gan_lab.data.listing import Listing, list_folder, listed
from gan_lab.data.metadata import read_metadata
from gan_lab.data.source import FileSource, existing_folder
from gan_lab.data.splits import grouped, members_by_table
from gan_lab.data.tables import read_table
from gan_lab.data.transform import Crop, ImageSize
from gan_lab.errors import InputError


class ImageFolder(EncodedImages):
    """All images under a folder, sub-folders of any depth included; hidden files and folders are passed over.

    Classes and splits are those that `read_metadata` finds; test images are left alone.

    Args:
        split: "train" or "val".
        root: the folder.
        classes: True makes each sub-folder of `root` a class, False makes one class of everything; None takes the
            classes of a table, or else the sub-folders when there are images in them and none in `root` itself.
        attributes: columns of numbers in its table that are labels in place of classes, or True for all of them; None
            takes them where the table has no classes.
        val_fraction: part of the images to validate on, chosen by a hash of their names, where nothing says which.
        image_size: one number, [H, W], or None for the one size that all files have.
        crop: "center" | "none" | pixels | [H, W]; see `ImageTransform`.
        resample: "lanczos" | "box" | "bicubic" | "bilinear".
        channels: 1 | 3 | 4, or None for those of most files.
        flip: append the mirror images.
        skip_unreadable: leave out what cannot be read.
        max_megapixels: larger images count as unreadable.
        bits: 8 | 16 | 32 (floating point), or None for those that they have.
        window: of more than 8 bits: "range" | "full" | "percentiles" | [centre, width], in levels.
        group_by: what images of one group have in common, which stay on one side of a split; as `grouped` takes it.
        folds: in place of `val_fraction`: so many parts of about as many groups each, of which one validates.
        fold: which one, from 0 on.

    Raises:
        InputError: for a missing or empty folder, unreadable files, mixed sizes, options out of range.
    """

    def __init__(
        self,
        *,
        split: str,
        root: str | Path | None,
        classes: bool | None = None,
        attributes: bool | str | Sequence[str] | None = None,
        val_fraction: float = 0.0,
        image_size: ImageSize = None,
        crop: Crop = "center",
        resample: str = "lanczos",
        channels: int | None = None,
        flip: bool = False,
        skip_unreadable: bool = False,
        max_megapixels: float = MAX_MEGAPIXELS,
        bits: int | None = None,
        window: str | Sequence[float] = "range",
        group_by: str | None = None,
        folds: int | None = None,
        fold: int = 0,
    ) -> None:
        folder = existing_folder(root, "a folder of pictures")
        table = read_metadata(
            _list_images(folder),
            lambda name: read_side_file(folder / name),
            root=folder,
            classes=classes,
            group_by=group_by,
        )
        table = grouped(table, group_by, root=folder)
        labels, names = table.conditions(attributes, root=folder)
        super().__init__(
            source=FileSource(root=folder, names=table.files),
            labels=labels,
            class_names=table.class_names,
            attributes=names,
            members=members_by_table(
                table, split=split, val_fraction=val_fraction, root=folder, folds=folds, fold=fold
            ),
            split=split,
            image_size=image_size,
            crop=crop,
            resample=resample,
            channels=channels,
            flip=flip,
            skip_unreadable=skip_unreadable,
            max_megapixels=max_megapixels,
            bits=bits,
            window=window,
            table=table,
        )


def _list_images(folder: Path) -> Listing:
    """List a folder that must hold images; other files are counted and named."""
    try:
        listing = list_folder(folder)
    except OSError as error:
        raise InputError(f"data.root={folder} cannot be read: {error.strerror}") from error
    if not listing.images:
        others = [*listing.side_files, *(name for name, _ in listing.passed_over)]
        held = f"holds no images (but {listed(others, limit=3)})" if others else "is empty"
        raise InputError(f"data.root={folder} {held}; expected {', '.join(FORMATS)}")
    listing.report(folder)
    return listing


def read_side_file(path: Path) -> bytes:
    """Return the content of a table or text beside samples."""
    with regular_file(path) as file:
        return read_table(file)
