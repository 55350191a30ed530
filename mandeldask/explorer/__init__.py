"""The explorer: pan and zoom in the browser over a store and beyond it; a leaf. See README.md beside this file."""

from __future__ import annotations

from mandeldask.explorer.server import explore, serve
from mandeldask.explorer.tiles import open_scene

__all__ = ["explore", "open_scene", "serve"]
