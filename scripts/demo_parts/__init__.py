"""What `scripts/demo.py` is made of: one act a module, and the tally they end in."""
