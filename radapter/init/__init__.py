"""From a folder or file of one's own to a recipe that trains on it as it is."""

from radapter.init.layouts import look
from radapter.init.writing import Start, start

__all__ = ["Start", "look", "start"]
