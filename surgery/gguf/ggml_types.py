"""GGML's tensor types: their block sizes, and the changes that their blocks allow exactly."""

from __future__ import annotations

from dataclasses import dataclass

from gguf.constants import GGML_QUANT_SIZES

# Types whose all-zero blocks decode to zeros.
_ZEROS = {
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"),
    *("TQ1_0", "TQ2_0", "MXFP4", "NVFP4"),
}
# Where a block's float16 factors are, in bytes. Every value of the block is a sum of products with
# exactly one of them, so what multiplies all of them multiplies the values. IQ1_M spreads its
# factor over other fields, and the factors of MXFP4 and NVFP4 are no float16.
_FACTORS = {
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "IQ4_XS", "IQ1_S"), (0,)),
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
}


@dataclass(frozen=True)
class GgmlType:
    """A tensor type: its number in files, and the bytes that a block of `block` values takes."""

    number: int
    name: str
    block: int
    bytes: int

    @property
    def zeros(self) -> bool:
        """Whether blocks of zero bytes decode to zeros."""
        return self.name in _ZEROS

    @property
    def factors(self) -> tuple[int, ...]:
        """The offsets of a block's float16 factors; empty if it has none to multiply."""
        return _FACTORS.get(self.name, ())

    @property
    def is_float(self) -> bool:
        """Whether each value is stored as a float of its own."""
        return self.name in ("F32", "F16", "BF16")


TYPES = {
    int(kind): GgmlType(int(kind), kind.name, block, size)
    for kind, (block, size) in GGML_QUANT_SIZES.items()
}
