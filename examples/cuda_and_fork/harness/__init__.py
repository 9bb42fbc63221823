"""What run_all.py is made of: the cases, starting and asking them, looking at their processes, the table."""
