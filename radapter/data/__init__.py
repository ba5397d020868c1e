"""Where pictures, texts and labels come from: folders, tables, shards, the built-in set."""

from radapter.data.dataset import Dataset
from radapter.data.opening import open_data, same_pictures

__all__ = ["Dataset", "open_data", "same_pictures"]
