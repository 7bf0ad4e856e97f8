"""filter: tiles → maps."""
