"""TensorRT engines of a bundle's towers: one engine from one file, all engines of a bundle."""
