"""The Triton engine: one or several inference servers."""
