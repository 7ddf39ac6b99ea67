"""Reports: pictures of a training run, of its predictions, and of a machine's limits."""

from .confusion import plot_confusion
from .curve import plot_history
from .files import check_plot
from .names import shortened
from .predicted import plot_predicted
from .rates import plot_rates
from .roofline import plot_bench

__all__ = [
    "check_plot",
    "plot_bench",
    "plot_confusion",
    "plot_history",
    "plot_predicted",
    "plot_rates",
    "shortened",
]
