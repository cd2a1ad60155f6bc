"""What is learnt from, from written texts to batches of arrays. In the order in which data pass
through:

`texts` (what is said) -> `synthesis` (spoken by synthesisers), `recordings` (spoken by people) or
`importers` (corpora of others) -> `storage` (on disk) -> `packing` (which records share a row) and
`pipelines` (batches, one file a layout). `datasets` shows the corpus to TensorFlow Datasets.
"""
