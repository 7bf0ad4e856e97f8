"""load: slide → tissue mask → tiles."""
