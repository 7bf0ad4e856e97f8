"""The names of the files of nuclei."""

from __future__ import annotations

GEOJSON_NAME, GEOJSON_ZIP_NAME = "nuclei.geojson.gz", "nuclei.geojson.zip"
CSV_NAME, PARQUET_NAME = "nuclei.csv.gz", "nuclei.parquet"
LABELS = "nuclei-labels.ome.tif"
DENSITY = "density.tif"
REPORT = "report.html"

FILES = {
    "geojson": (GEOJSON_NAME, GEOJSON_ZIP_NAME),
    "table": (CSV_NAME, PARQUET_NAME),
    "labels": (LABELS,),
    "density": (DENSITY,),
    "report": (REPORT,),
}
"""The names that the files of an output may have, by the words of the setting `outputs`."""
