"""From a folder or file of one's own to a recipe that trains on it as it is."""

from radapter.starting.layouts import look
from radapter.starting.writing import Start, start

__all__ = ["Start", "look", "start"]
