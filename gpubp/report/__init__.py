"""Reports: pictures of a training run."""

from .plot import check_plot, plot_history

__all__ = ["check_plot", "plot_history"]
