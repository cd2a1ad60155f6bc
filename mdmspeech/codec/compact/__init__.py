"""The compact codec: our own FSQ tokenizer and source-filter decoder, small enough to train on a
laptop.
"""
