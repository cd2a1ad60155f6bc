"""What the Thinker reads before every question, so that a 135 M model answers like a voice: one short sentence, or your own words back.

Chosen by measurement on SmolLM2-135M-Instruct (4-bit copy, greedy; 20 capitals, 40 mixed facts, 40 sentences to repeat, none of
them in the examples below; right answers / exact repetitions, words an answer, answers that ended by themselves within 28 tokens):

    prefix                                   tokens  capitals  facts  repeats  words  ended
    this one                                    174     18/20  31/40    39/40    6.2   100%
    the same system message, 2 examples          88     18/20  28/40    36/40    6.5   100%
    the same system message, 7 examples         221     18/20  29/40    38/40    5.9   100%
    ... and with half the facts and repeats (36 tokens allowed):
    the same system message alone                36     16/20   9/20    10/20   10.1    90%
    the model's default system message           24     17/20   9/20    16/20   16.5    75%

The prefix was chosen on these same questions, and the rows with examples differ by a few items only: expect a little less on new ones.
The examples are read once and their keys and values kept (`models.generation.fit_state`), so they cost nothing per question.
"""

SYSTEM = (
    "You are a helpful voice assistant. Answer in one short sentence. If the user says repeat after me, say exactly the words that follow."
)

EXAMPLES: tuple[tuple[str, str], ...] = (
    ("Repeat after me: The sun is warm today.", "The sun is warm today."),
    ("What is the capital of Italy?", "The capital of Italy is Rome."),
    ("Repeat after me: Where did they find the old map?", "Where did they find the old map?"),
    ("What is the opposite of up?", "The opposite of up is down."),
    ("Repeat after me: Tomorrow my sister plays the piano.", "Tomorrow my sister plays the piano."),
)

REPEAT = "Repeat after me: {}"  # the question of a text that answers none


def conversation(question: str, system: str = SYSTEM, examples: tuple[tuple[str, str], ...] = EXAMPLES) -> list[dict[str, str]]:
    """Messages of a new conversation that ends with the user's `question` (or `tokenizer.SPEECH`)."""
    messages = [{"role": "system", "content": system}]
    for asked, answered in examples:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*messages, {"role": "user", "content": question}]
