"""How far a column has moved, whether by chance, and how severe that is: pure functions."""
