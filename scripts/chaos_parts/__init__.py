"""What `scripts/chaos.py` is made of: load, deaths, faults, both sides, and the comparison."""
