"""Measures speed and memory beside the peers and the physical limits; ``python -m benchmarks`` prints one table."""
