"""A trained model as one file, in the form that the file's name asks for."""

from pathlib import Path

from feedseg.export import bioimageio, onnx, portable, stablehlo
from feedseg.inference import bundled, loading, onnx_runtime
from feedseg.runtime.errors import UserError

_PROGRAMS = {
    stablehlo.SUFFIX: stablehlo.export,
    onnx_runtime.SUFFIX: onnx.export,
}
SUFFIXES = (bundled.SUFFIX, *_PROGRAMS, bioimageio.SUFFIX)


def export(
    where: Path,
    to: Path,
    card: dict,
    *,
    example: Path | None = None,
    checkpoint: str = "best",
    overwrite: bool = False,
    tile: int = 0,
    pixel_type: str = "",
) -> str:
    """Write a model and say in a line what was written.

    where: a run directory; for other forms than feedseg's own also a model file or a name of
    `feedseg models`. card, example: as in `loading.export`. tile: px, of the only square that a
    program takes; 0: any size where the network can be written so. pixel_type: as in
    `bioimageio.export`.
    Raises UserError if the name ends in no known form, the file exists, or the model cannot be
    written in this form.
    """
    suffix = next((each for each in SUFFIXES if Path(to).name.endswith(each)), "")
    if pixel_type and suffix != bioimageio.SUFFIX:
        raise UserError(f"--pixel-type {pixel_type}: is for {bioimageio.SUFFIX} alone")
    if suffix == bundled.SUFFIX:
        if tile:
            raise UserError(
                f"--tile {tile}: a {suffix} file is for tiles of any size; leave it out"
            )
        how = dict(example=example, checkpoint=checkpoint, overwrite=overwrite)
        loading.export(where, to, card, **how)
        return f"{_said(to)}; use it with predict --model {to}"
    if example and suffix in _PROGRAMS:
        raise UserError(f"--example {example}: a {suffix} file has none; leave it out")
    with loading.target(to, overwrite, SUFFIXES) as to:
        if suffix == bioimageio.SUFFIX:
            how = dict(example=example, checkpoint=checkpoint, tile=tile, pixel_type=pixel_type)
            said = bioimageio.export(where, to, card, **how)
            return f"{_said(to)}; {said}"
        model = loading.load(where, checkpoint)
        about = portable.model_card(where, checkpoint, card)
        off = _PROGRAMS[suffix](model, to, about, tile=tile)
        return f"{_said(to)}; its probabilities differ from the model's by at most {off:.1g}"


def _said(to: Path) -> str:
    return f"wrote {to}, {to.stat().st_size / 1e6:.2f} MB"
