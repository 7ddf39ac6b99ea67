"""Scalar mathematics and the fused loops around it, written once for CPU and CUDA."""
