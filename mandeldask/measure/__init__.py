"""The area of the set, or of a window of it, with an error bar."""

from mandeldask.measure.counting import Counted, area
from mandeldask.measure.estimate import Area

__all__ = ["Area", "Counted", "area"]
