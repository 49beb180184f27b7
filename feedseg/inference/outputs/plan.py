"""Which files a prediction reads and writes."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from feedseg.inference.outputs import object_tables
from feedseg.inference.outputs.instances import InstanceSpec
from feedseg.io import channel_files, images
from feedseg.io.writers import formats
from feedseg.runtime.errors import UserError
from feedseg.runtime.files import require_folder, require_room
from feedseg.runtime.names import same_name
from feedseg.runtime.notes import note


class OutputOptions(NamedTuple):
    """What to write of an image beside its labels."""

    probabilities: str = ""  # their type, of `channel_maps.TYPES`; none: no probabilities
    uncertainty: bool = False
    overlay: bool = False
    tables: bool = False
    instances: InstanceSpec | None = None
    form: str = "tiff"  # of the labels, of `formats.formats`


ONLY_LABELS = OutputOptions()


class ImageTask(NamedTuple):
    """One input file and the files made from it."""

    image: Path
    labels: Path
    wanted: OutputOptions = ONLY_LABELS
    probabilities: Path | None = None
    uncertainty: Path | None = None
    overlay: Path | None = None
    tables: tuple[Path, ...] = ()  # of classes and of objects
    instances: tuple[Path, ...] = ()  # ids and a table

    def outputs(self) -> list[Path]:
        """The files to be written."""
        maps = (self.labels, self.probabilities, self.uncertainty, self.overlay)
        return [path for path in maps if path] + [*self.tables, *self.instances]


def plan_jobs(
    inputs: Path | Sequence[Path],
    output: Path,
    wanted: OutputOptions = ONLY_LABELS,
    endings: Sequence[str] = (),
) -> list[ImageTask]:
    """The files to read and to write; inputs: files, folders and patterns such as `day1/*.tif`.

    endings: of images whose channels are files of their own (`channel_files`), named by the first.
    Raises UserError if there is no image, if a result would have too long a name, or if a folder
    would receive its own results (they would be taken for images the next time).
    """
    require_folder(output)
    files: list[Path] = []
    searched: set[Path] = set()  # folders whose images are not named one by one
    for each in [inputs] if isinstance(inputs, str | Path) else inputs:
        found = _files(Path(each), output)
        if found != [Path(each)]:
            searched |= {file.parent.resolve() for file in found}
        files += [file for file in found if file not in files]
    files = channel_files.firsts(files, endings)
    stems = [output / name for name in output_names(files, endings)]
    for folder in dict.fromkeys([output, *(stem.parent for stem in stems)]):
        if folder.resolve() in searched:
            raise UserError(f"{folder}: is the folder of the images; give another --output folder")
    jobs = [_job(file, stem, wanted) for file, stem in zip(files, stems, strict=True)]
    for job in jobs:
        for path in job.outputs():
            require_room(path, job.image)
    return jobs


def _files(where: Path, output: Path) -> list[Path]:
    """Image files that a path or a pattern stands for; a path that exists is no pattern.

    A pattern that fits folders alone stands for the images in them.
    """
    if where.exists() or not glob.has_magic(str(where)):
        if deeper := _sub_folder_with_images(where, output):
            remedy = f'"{where}/**/*" takes them too'
            note("deeper", f"{deeper}: sub-folders are passed over; {remedy}")
        return images.list_images(where)
    matches = [Path(name) for name in sorted(glob.glob(_literal(where), recursive=True))]  # noqa: PTH207 (also absolute)
    fitting = {path: None for path in matches if images.is_image(path)}
    files = [path for path in fitting if fitting.keys().isdisjoint(path.parents)]  # no part of one
    if not files:  # perhaps folders of them
        inside = (each for path in matches if path.is_dir() for each in sorted(path.iterdir()))
        files = [each for each in inside if each.name[0] != "." and images.is_image(each)]
    if not files:
        raise UserError(f"{where}: no image fits; expected {', '.join(images.SUFFIXES)}")
    return files


def _sub_folder_with_images(where: Path, output: Path) -> Path | None:
    """The first sub-folder of a folder that holds an image itself, but for that of the results."""
    if not where.is_dir() or images.is_image(where):
        return None
    inside = (each for each in sorted(where.iterdir()) if each.is_dir())
    folders = (each for each in inside if each.resolve() != output.resolve())
    plain = (f for f in folders if not f.name.startswith(".") and not images.is_image(f))
    return next((f for f in plain if any(map(images.is_image, f.iterdir()))), None)


def _literal(where: Path) -> str:
    """A pattern whose first parts, as far as they exist, are taken as they are: `br[x]/*.tif`."""
    there = next(path for path in (where, *where.parents) if path.exists())
    return str(Path(glob.escape(str(there)), where.relative_to(there)))


def _job(image: Path, stem: Path, wanted: OutputOptions) -> ImageTask:
    def beside(kind: str) -> Path:
        return stem.with_name(f"{stem.name}_{kind}")

    return ImageTask(
        image,
        beside(f"labels{formats.suffix(wanted.form)}"),
        wanted,
        beside("probabilities.tif") if wanted.probabilities else None,
        beside("uncertainty.tif") if wanted.uncertainty else None,
        beside("overlay.png") if wanted.overlay else None,
        object_tables.table_paths(stem) if wanted.tables else (),
        (beside("instances.tif"), beside("instances.csv")) if wanted.instances else (),
    )


def output_names(files: list[Path], endings: Sequence[str] = ()) -> list[str]:
    """A name per file: its stem; with its folders, below the one that all share, if files of
    several folders share a stem; `stem_suffix` for all if two still share a name.

    Upper and lower case count as equal, and so do the forms of accents (`same_name`). Raises
    UserError if two names stay equal so.
    """
    names = [channel_files.stem(images.stem(file), endings) for file in files]
    folders = [Path(os.path.abspath(file.parent)) for file in files]  # noqa: PTH100 (links stay)
    once_each = {(same_name(name), folder) for name, folder in zip(names, folders, strict=True)}
    if _repeated(name for name, _ in once_each):
        shared = os.path.commonpath(folders)
        below = [folder.relative_to(shared) for folder in folders]
        names = [str(folder / name) for folder, name in zip(below, names, strict=True)]
    if _repeated(names):
        names = [f"{name}_{f.suffix[1:].lower()}" for name, f in zip(names, files, strict=True)]
    if repeated := _repeated(names):
        raise UserError(
            f"{files[0].parent}: several images are called {repeated}; rename them or give each "
            "folder an --output of its own"
        )
    return names


def _repeated(names: Iterable[str]) -> str | None:
    name, count = Counter(map(same_name, names)).most_common(1)[0]
    return name if count > 1 else None


def refuse_existing(jobs: list[ImageTask]) -> None:
    """Raises UserError if a file to be written is there already."""
    planned = [path for job in jobs for path in job.outputs()]
    there = [path for path in planned if path.exists()]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(f"{there[0]}{more}: exists; add --overwrite or choose another --output")
