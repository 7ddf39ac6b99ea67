"""The CuPy backend: the same operations on an NVIDIA GPU. Nothing here imports CuPy before a GPU is asked for."""
