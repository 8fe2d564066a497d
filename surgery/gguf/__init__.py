"""GGUF files in and out, without dequantizing them: read, rearrange, verify, run in llama.cpp.

    from surgery.gguf import open_gguf_file, save_gguf

    base = open_gguf_file("model-Q4_K_M.gguf")
    save_gguf(base, Plan.parse("0:13, 17:30", base.depth), Path("out.gguf"))

Needs neither torch nor transformers.
"""

from surgery.lazy import lazy_names

_HOMES = {
    "GgufFile": "file",
    "Saved": "save",
    "open_gguf_file": "file",
    "save_gguf": "save",
    "verify_gguf": "verify",
}
__all__ = sorted(_HOMES)
__getattr__ = lazy_names(__name__, _HOMES)
