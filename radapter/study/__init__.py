"""Several methods compared fairly: trials, the choice among them, finalists, and their table."""
