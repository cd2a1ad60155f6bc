"""How fast things run, beside what the machine can do at best: both measured in the same run."""
