"""stitch: slide and maps → image.tif, config.meta, config_render.json."""
