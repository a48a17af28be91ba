"""One self-contained HTML page from run folders, and the figures in it."""

from __future__ import annotations

from medssl.report.figures import curve_figure, difference_figure, training_figure
from medssl.report.html import write_report
from medssl.report.scans import save_reconstructions, save_views, segmentation_figure

__all__ = ["curve_figure", "difference_figure", "save_reconstructions", "save_views", "segmentation_figure",
           "training_figure", "write_report"]
