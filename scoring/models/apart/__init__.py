"""A model in a process of its own, for chunks whose workers died or hung.

What kills or hangs that process leaves the worker alive, which then knows with which rows it
happened. It costs the start of Python and the loading of the model, once more after each death,
and each row is copied twice: so only attempts that follow a death use it.
"""

from scoring.models.apart.engine import ApartEngine

__all__ = ["ApartEngine"]
