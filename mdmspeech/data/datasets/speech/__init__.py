"""The dataset of the voice: answers and open sentences."""
