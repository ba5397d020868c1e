from tiny_bundle import bundle_copy, exported, tiny

__all__ = ["bundle_copy", "exported", "tiny"]
