"""Finds, opens and reads whole-slide images of any supported format."""

from nuclei_segmentation.shared.slides.find import find_slide
from nuclei_segmentation.shared.slides.fingerprint import fingerprint, stat_of
from nuclei_segmentation.shared.slides.open import open_slide
from nuclei_segmentation.shared.slides.slide import RegionPixels, Slide, SlideInfo

__all__ = ["RegionPixels", "Slide", "SlideInfo", "find_slide", "fingerprint", "open_slide", "stat_of"]
