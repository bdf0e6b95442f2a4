"""Towers: a modality's encoder and the head that leads into the anchor space."""

from modalbind.encoders.head import build_head
from modalbind.encoders.tower import Tower, build_tower

__all__ = ["Tower", "build_head", "build_tower"]
