"""What more than one operator needs: slides, the tile grid, settings, errors, progress, the command line."""
