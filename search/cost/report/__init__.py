"""What a spec costs, told: as a dictionary of plain numbers, as text, as a page."""
