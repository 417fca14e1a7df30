"""The report: results in, one self-contained HTML page with pictures out.

`Page` and its parts are plain data, and `render` turns them into HTML (it needs the extra `unseen[report]`). `project`
places real and synthetic features in one plane.
"""

from unseen.report.contents import Confusion, Curve, Gallery, Page, PictureGuess, Projection
from unseen.report.page import render
from unseen.report.projection import project

__all__ = ["Confusion", "Curve", "Gallery", "Page", "PictureGuess", "Projection", "project", "render"]
