"""The pyramid: its levels, spans and JPEG segments, and the TIFF file that holds them."""
