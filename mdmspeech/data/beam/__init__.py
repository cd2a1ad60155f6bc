"""Preparation of a dataset on Apache Beam: from a corpus of any format to shards, columns and
statistics, the same bytes on a laptop and on a cluster.

What is done to a record is plain functions, which need no Beam: `records` (what flows), `sources`
(where it comes from), `stages` (clean, align, synthesise, speech tokens, encoder states), `voices`
(who speaks texts without sound), `parts` (a shard, and what is known of it), `finish` (the parts
become the dataset). `pipeline` alone imports Beam and joins them.
"""
