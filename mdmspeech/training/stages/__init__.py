"""One module a training stage: codec, hearing (speech to text), talker (Bernoulli, HBM + ISD,
next-token).
"""
