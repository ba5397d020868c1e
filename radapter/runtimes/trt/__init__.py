"""TensorRT and TensorRT-RTX: what is installed, which engines of a bundle fit, and running them."""
