"""Written text: what is said of it (`normalise`, and one file for each kind of thing that is not a
word), how it sounds (`pronounce`), its ids (`tokenizer`, `pieces`), and the prompts around it
(`prompts`, `chat_template`, `thinking`).
"""
