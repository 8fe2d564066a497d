"""Read one matrix of a base: a corner of its raw values, and its singular values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from surgery.architecture.inspect.names import disk_layers
from surgery.errors import BaseError, SurgeryError
from surgery.initialisers import Block
from surgery.plan import COPY, Init
from surgery.progress import Progress, silent

from .counting import DTYPES
from .survey import part_of

if TYPE_CHECKING:
    from surgery.base import Base


_matrices: WeakKeyDictionary[Base, list[Matrix]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Matrix:
    """A stored matrix: its name, kind, layer and shape (rows, columns), and, if it is an output
    projection, the block that it ends."""

    name: str
    kind: str
    layer: int | None
    shape: tuple[int, int]
    output: Block | None


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values in descending order.

    `stable_rank` is ‖W‖²_F / σ₁²: the number of directions that carry most of it, at most its rank.
    """

    matrix: Matrix
    values: np.ndarray

    @property
    def stable_rank(self) -> float:
        """The stable rank; 0 for a matrix of zeros."""
        largest = float(self.values[0]) if len(self.values) else 0.0
        return float((self.values.astype(np.float64) ** 2).sum()) / largest**2 if largest else 0.0


def matrices(base: Base, progress: Progress = silent) -> list[Matrix]:
    """The matrices in a base's files."""
    if base not in _matrices:
        _matrices[base] = _list(base, progress)
    return _matrices[base]


def _list(base: Base, progress: Progress) -> list[Matrix]:
    _, stored = base.stored(progress)
    where = disk_layers(base.anatomy, stored)
    listed = []
    for name, tensor in stored.items():
        part = part_of(name, where[name])
        if (
            len(tensor.shape) == 2
            and tensor.dtype in DTYPES
            and (part.layer is None or part.layer < base.depth)
        ):
            listed.append(Matrix(name, part.kind, part.layer, tensor.shape, part.output))
    return listed


def find(base: Base, layer: int | None, kind: str, progress: Progress = silent) -> Matrix:
    """The first matrix of a kind in a layer. Raises `SurgeryError` if there is none."""
    for matrix in matrices(base, progress):
        if matrix.layer == layer and matrix.kind == kind:
            return matrix
    place = "outside the layers" if layer is None else f"in layer {layer}"
    raise SurgeryError(f"There is no stored matrix of kind “{kind}” {place}.")


def corner(base: Base, matrix: Matrix, size: int = 12, init: Init = COPY) -> np.ndarray:
    """The first rows and columns after `init` is applied: float32, at most (size, size)."""
    values = _read(base, matrix, lambda rows: rows[:size, :size])
    initialiser = init.initialiser
    if initialiser.from_source and initialiser.changes_tensor(matrix.output):
        values = initialiser.new_values(values, None, init.factor)
    return values.float().numpy()


def spectrum(base: Base, matrix: Matrix, progress: Progress = silent) -> Spectrum:
    """All singular values, computed by LAPACK in float32. Raises `SurgeryError`."""
    progress("Reading the matrix", 0, 0)
    values = _read(base, matrix, lambda rows: rows[:]).float()
    if not torch.isfinite(values).all():
        raise SurgeryError(f"{matrix.name} holds NaN or infinities, so it has no singular values.")
    progress("Computing singular values", 0, 0)
    return Spectrum(matrix, torch.linalg.svdvals(values).numpy())


def _read(base: Base, matrix: Matrix, part) -> torch.Tensor:
    folder, stored = base.stored()
    path = folder / stored[matrix.name].file
    try:
        with safe_open(path, framework="pt") as file:
            return part(file.get_slice(matrix.name))
    except (OSError, SafetensorError) as error:
        raise BaseError(f"{path} can't be read: {error}.") from error
