"""CosyVoice2's codec: the S3 tokenizer (speech -> tokens), the flow (tokens -> mel) and HiFT (mel
-> speech), for the published weights.
"""
