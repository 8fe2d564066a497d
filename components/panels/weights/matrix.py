"""Choose one matrix of a layer, and draw it as the plan initialises it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from surgery import Layer, SurgeryError
from surgery.progress import Progress, Turn

from . import matrix_figures

if TYPE_CHECKING:
    from surgery import Base
    from surgery.weight_stats.matrix import Matrix, Spectrum

RAW, SINGULAR = "raw values", "singular values"


class LastSpectrum:
    """A session's last spectrum. Only one is computed at a time: LAPACK can't be interrupted."""

    def __init__(self) -> None:
        self._turn = Turn("Waiting for the previous matrix")
        self._kept: tuple[str, Spectrum] | None = None

    def of(self, base: Base, matrix: Matrix, progress: Progress) -> Spectrum:
        """The spectrum of a matrix. `progress` may raise to stop, until computing begins."""
        from surgery.weight_stats.matrix import spectrum

        key = f"{base.source.identity} {matrix.name}"
        with self._turn.taken(progress) as report:
            kept = self._kept  # may be released meanwhile
            if kept is None or kept[0] != key:
                kept = self._kept = key, spectrum(base, matrix, report)
            return kept[1]

    def release(self) -> None:
        """Release its memory."""
        self._kept = None


def draw_matrix(
    base: Base, layer: Layer, kind: str | None, spectrum: LastSpectrum | None
) -> Callable[[Progress], dict]:
    """Work that yields the figure of a layer's matrix: its singular values, which `spectrum` keeps,
    or else its raw values."""

    def work(progress: Progress) -> dict:
        from surgery.weight_stats.matrix import corner

        matrix = _choose(base, layer.source, kind, progress)
        name = f"layer {layer.source}, {matrix.kind}"
        factor = layer.init.factor_of(matrix.output)
        if factor is None:
            name += ", as the base has it"
        if spectrum is None:
            return matrix_figures.corner(name, matrix.shape, corner(base, matrix, init=layer.init))
        last = spectrum.of(base, matrix, progress)
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
