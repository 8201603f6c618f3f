"""One file for each framework: nothing here is imported unless its user asks for it."""
