"""Choose one matrix of a layer, and draw it as the plan initialises it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from surgery import Layer, SurgeryError
from surgery.progress import Progress

from . import matrix_figures

if TYPE_CHECKING:
    from surgery import Base
    from surgery.weight_stats.matrix import Matrix, Spectrum

RAW, SINGULAR = "raw values", "singular values"


def draw_matrix(
    base: Base, layer: Layer, kind: str | None, singular: bool, spectra: dict[str, Spectrum]
) -> Callable[[Progress], dict]:
    """Work that yields the figure of a layer's matrix. `spectra` keeps the last spectrum."""

    def work(progress: Progress) -> dict:
        from surgery.weight_stats.matrix import corner, spectrum

        matrix = _choose(base, layer.source, kind, progress)
        name = f"layer {layer.source}, {matrix.kind}"
        factor = layer.init.factor_of(matrix.output)
        if factor is None:
            name += ", as the base has it"
        if not singular:
            return matrix_figures.corner(name, matrix.shape, corner(base, matrix, init=layer.init))
        key = f"{base.source.identity} {matrix.name}"
        if key not in spectra:
            result = spectrum(base, matrix, progress)
            spectra.clear()
            spectra[key] = result
        last = spectra[key]
        factor = 1.0 if factor is None else factor
        rank = last.stable_rank if factor else 0.0
        values = last.values * np.float32(abs(factor))
        return matrix_figures.spectrum(name, matrix.shape, values, rank)

    return work


def _choose(base: Base, source: int, kind: str | None, progress: Progress) -> Matrix:
    """The layer's matrix of a kind, or its first one."""
    from surgery.weight_stats.matrix import matrices

    there = [m for m in matrices(base, progress) if m.layer == source]
    if not there:
        raise SurgeryError(f"Layer {source} has no stored matrix to show.")
    return next((m for m in there if m.kind == (kind or "q")), there[0])
