"""The Celery application: ``celery -A tasks worker``, ``beat`` and ``flower``."""

from scoring.garbage import search_seldom

search_seldom()

from tasks.app import app  # noqa: E402 - after what makes it quicker

__all__ = ["app"]
