"""Reports: pictures of a training run and of a machine's limits."""

from .plot import check_plot, plot_history
from .roofline import plot_bench

__all__ = ["check_plot", "plot_bench", "plot_history"]
