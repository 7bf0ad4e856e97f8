"""The pyramid: levels, JPEG segments, and the TIFF file that they go into."""
