"""Programs that measure Nightscore against what a careful person would write by hand."""
