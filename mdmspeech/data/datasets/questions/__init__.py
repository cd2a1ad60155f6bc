"""The dataset of spoken questions."""
