"""The one source of training: TFDS datasets in ArrayRecord files, read at random from a disk or a
bucket, without TensorFlow.

`features` (what a record holds), `writer`, `index` (columns beside the shards), `array_record` (one
shard), `reader`, `corpus` (the parts by name and split), `make` (datasets of recordings, tokens and
states), `upgrade` (those of earlier versions).
"""
