"""TFDS datasets of the corpus and of users' own recordings: ArrayRecord files, read and written
without TensorFlow. See `prepare` and `open_dataset`.
"""

from mdmspeech.data.datasets.store import Dataset, Prepared, open_dataset, prepare

__all__ = ["Dataset", "Prepared", "open_dataset", "prepare"]
