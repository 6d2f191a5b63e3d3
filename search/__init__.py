"""What is worth keeping: cost, evaluation, study and report."""
