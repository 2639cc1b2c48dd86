"""How the names of image files end."""

from models.images.formats import SUFFIXES

IMAGE_SUFFIXES = frozenset(SUFFIXES)
