"""How good the scores were, once labels are known: pure functions of answers and truth."""
