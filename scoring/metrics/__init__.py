"""Metrics: what Prometheus is told of the fleet."""

from scoring.metrics.endpoint import Endpoint, exposition, serve

__all__ = ["Endpoint", "exposition", "serve"]
