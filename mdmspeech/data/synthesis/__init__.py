"""The corpus, spoken: `jobs` (who says what), `render` (jobs in shards, many processes), `build`
(all parts in order), `augment` (noise, rooms, levels).

The synthesisers are in `voices`.
"""
