"""radapter: adapt a CLIP model to your data without losing what it knew."""

__version__ = "0.1.0"
