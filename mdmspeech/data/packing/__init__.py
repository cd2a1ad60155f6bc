"""Which records share a row of a batch, and which rows are whose: `bins` (bin packing), `mixing`
(several sources as one stream), `plan` (the two put together, and the iterator over packed
batches), `sharding` (the share of one host).
"""
