"""Training: one step, the loop of epochs around it, validation, early stopping, checkpoints, a whole objective."""

from .history import History
from .objective import Objective
from .rate_finder import RateSweep, find_learning_rate
from .stopping import EarlyStopping
from .tensorboard import TensorBoard
from .trainer import Trainer

__all__ = [
    "EarlyStopping",
    "History",
    "Objective",
    "RateSweep",
    "TensorBoard",
    "Trainer",
    "find_learning_rate",
]
