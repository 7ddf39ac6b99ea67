"""Many networks of one shape, trained at once: for cross-validation, ensembles, and the search of hyperparameters."""

from .population import Population
from .trainer import PopulationTrainer

__all__ = ["Population", "PopulationTrainer"]
