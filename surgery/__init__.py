"""Layer surgery for decoder-only language models, as a library."""
