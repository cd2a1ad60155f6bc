"""Speech tokens <-> waves: `base` is what every codec can do, `fsq` the quantiser they share;
`compact` is ours, `cosyvoice2` the published one.
"""
