"""Schedules: which slots are due, and the beat that looks."""
