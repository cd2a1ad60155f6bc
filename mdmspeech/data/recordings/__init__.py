"""Speech of people: `manifests` (lists of a user's recordings), `user` (their import as a part of
the corpus), `align` (how long each symbol lasts in a recording), `human` (free recordings that are
for testing only).
"""
