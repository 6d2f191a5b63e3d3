"""How much training a candidate is worth: rising fidelities, foretold losses, scaled recipes, seeds, shared passes."""
