"""What people should know of a model, in whatever file it is."""

from typing import NamedTuple


class ModelCard(NamedTuple):
    """Facts and texts on a model.

    network: `config.model`; data: name of its data set; card: texts under `description`, `licence`,
    `data_licence`, `citation`, `limits`, `authors`; scores: by output, on its own test part.
    """

    network: dict
    data: str
    card: dict[str, str]
    scores: dict[str, dict]

    @classmethod
    def of(cls, manifest: dict) -> "ModelCard":
        """The card in the manifest of a model file."""
        return cls(*(manifest[field] for field in cls._fields))
