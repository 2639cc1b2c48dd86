"""Where weights lie: those that come along with the code, and those that were pulled. Nothing else decides it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.weights.manifest import WeightSet

# Of a checkout, and of the image, which has the same folders.
CHECKOUT = Path(__file__).parents[2] / "weights"
# Of an installed copy: what the wheel holds of that folder. In a checkout it is a link to the folder.
PACKAGE = Path(__file__).parent / "shipped"


@dataclass(frozen=True)
class Places:
    """shipped: folder of the manifest and the demo weights, which an installed copy never writes to. pulled: folder for
    all that is pulled; made by the first pull. The two may be one.
    """

    shipped: Path
    pulled: Path

    def folder_of(self, weights: WeightSet) -> Path:
        """Where this model's files lie, or would."""
        return (self.shipped if weights.tracked else self.pulled) / weights.folder


def find_places(chosen: Path | None = None) -> Places:
    """Where this copy of the code has its weights.

    chosen: the user's own folder for pulled weights (the setting `BOX2MASK_WEIGHTS_DIR`). None: in a checkout, that is
    where there is a `weights/` with a manifest beside the package, this same folder; else `box2mask/weights` in
    the user's folder for data of programs (on Linux `$XDG_DATA_HOME`, or `~/.local/share`).
    """
    checked_out = (CHECKOUT / "manifest.json").is_file()
    shipped = CHECKOUT if checked_out else PACKAGE
    if chosen is not None:
        return Places(shipped, chosen.expanduser())
    return Places(shipped, CHECKOUT if checked_out else _users_folder())


def _users_folder() -> Path:
    import platformdirs  # only where it is asked: exported MLflow models, which bring their weights, do without

    return platformdirs.user_data_path("box2mask", appauthor=False) / "weights"
