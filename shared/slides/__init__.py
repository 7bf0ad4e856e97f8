"""Finds, opens and reads whole-slide images, whatever their format."""

from shared.slides.find import find_slide
from shared.slides.fingerprint import fingerprint, stat_of
from shared.slides.open import open_slide
from shared.slides.slide import Region, Slide, SlideInfo

__all__ = ["Region", "Slide", "SlideInfo", "find_slide", "fingerprint", "open_slide", "stat_of"]
