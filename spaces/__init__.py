"""What may vary: a spec with choices in it, its members, their number and their vectors. Imports no torch."""
