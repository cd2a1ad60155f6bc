# %% [markdown]
# # Talk to a masked diffusion voice
#
# You ask a question aloud. A small open speech model hears it, thinks, and answers aloud.
#
# Most speech models write their speech token by token, like a typewriter. This one works like a crossword: it
# puts down 16 empty squares (0.64 s of speech) and fills them in a few **steps**, the surest first. The number
# of steps, **S**, is yours to choose: 1 is fastest, 16 fills one square at a time.
#
# In this notebook you will
#
# 1. ask a question, by microphone or keyboard,
# 2. hear the same answer at S = 1, 4 and 16, and judge by ear,
# 3. see where the milliseconds go,
# 4. see in which step each piece of the sound was decided.
#
# It runs on any Colab machine, also without a GPU. Choose *Runtime > Run all*, and allow the microphone when asked.

# %%
# @title Install (a minute or two on Colab; nothing where mdmspeech is there already)
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = "https://github.com/OWNER/mdmspeech"  # @param {type:"string"}

here = Path.cwd()
places = (here, *here.parents, here / "mdmspeech")
root = next((p for p in places if (p / "experiments/colab/install.py").is_file()), None)
if root is None:
    assert "OWNER" not in REPOSITORY, "say above where this notebook's git repository is"
    subprocess.run(["git", "clone", "-q", "--depth=1", REPOSITORY, "mdmspeech"], check=True)
    root = here / "mdmspeech"
os.chdir(root)
sys.path.insert(0, str(root))
# keeps the JAX that is there if it suits; ends with an error if JAX does not find the accelerator
install = [sys.executable, "experiments/colab/install.py"]
done = subprocess.run(install, capture_output=True, text=True)
print(done.stdout, done.stderr[-3000:])
assert done.returncode == 0, "the installation failed: the reason is above"
# %% [markdown]
# ## Load the model
#
# The weights come with the package; nothing else is downloaded. The first answer takes longest, because every part
# is compiled for this machine then. So here is one to warm up.

# %%
from IPython.display import Audio, Image, display

import mdmspeech
from experiments.colab import figures, helpers

model = mdmspeech.load("compact")
first = model.chat(helpers.QUESTION, steps=1)
print("it heard: ", first.heard)
print("it says:  ", first.text)

# %% [markdown]
# ## 1. Ask
#
# On Colab your browser asks for the microphone; you have six seconds, or press *stop*. Elsewhere the shipped
# question is asked. A file is as good: write `question = "my.wav"` (or flac, mp3, ogg) in place of the first
# line. English, please.

# %%
question = helpers.ask(seconds=6)

display(helpers.player(question))

# %%
reply = model.chat(question, steps=4)
print("it heard: ", reply.heard)
print("it says:  ", reply.text)
display(Audio(reply.audio, rate=reply.sample_rate))

# %% [markdown]
# The text model in the middle has only 135 million parameters. It knows capitals; do not ask it for advice.
#
# ## 2. The same answer in 1, 4 and 16 steps
#
# Listen for roughness in the consonants and for the melody at the end. Can you tell them apart?


# %%
def faster_of_two(steps):
    """The same answer twice: so that what else this machine is doing counts less."""
    both = [model.chat(question, steps=steps) for _ in range(2)]
    return min(both, key=lambda reply: reply.timeline["total_s"])


replies = {f"S = {steps}": faster_of_two(steps) for steps in (1, 4, 16)}
for name, answer in replies.items():
    timeline = answer.timeline
    print(f"{name}: {timeline['audio_s']:.1f} s of speech made in {timeline['total_s']:.2f} s")
    display(Audio(answer.audio, rate=answer.sample_rate))

# %% [markdown]
# On the whole test set one step is understood about as well as sixteen (the README has the figures with their
# intervals). The shipped voice was distilled for this: taught to say in one step what took it many.
#
# ## 3. Where the time goes
#
# What matters in a conversation is the silence before the first sound. Each bar is that silence, stage by stage.
#
# * **speech encoder** and **adaptor** turn sound into words,
# * the **Thinker** reads them and writes the first words of the answer,
# * the **Talker** fills the first block of speech tokens: the only stage that depends on S,
# * the **codec** turns tokens into a wave.

# %%
figures.latency(replies)

# %% [markdown]
# ## 4. The reveal: which token in which step?
#
# A row for each answer, a square for each speech token (40 ms), red lines between blocks. The number in a
# square is the step in which it was unmasked. At S = 1 all are decided at once. At S = 16 you see the order:
# not from left to right, but wherever the model was surest. This freedom is what an autoregressive model does
# not have.

# %%
figures.reveal(replies)

# %% [markdown]
# The same for one answer with its wave, its words, and how sure the model was (bright: sure). Look where it
# hesitates: often at the start of a word.

# %%
import tempfile

from mdmspeech.inference.plots import save_plot

picture = Path(tempfile.mkdtemp()) / "reveal.png"
save_plot(picture, replies["S = 16"])
display(Image(filename=picture))

# %% [markdown]
# ## 5. It speaks while it thinks
#
# Nothing waits for the whole answer. Here are the pieces as they come. The text arrives a few letters at a
# time, and sound starts before the text has ended.

# %%
import time

from mdmspeech.inference.reply import AudioEvent, TextEvent

start = time.perf_counter()
for event in model.stream(question, steps=1):
    after = 1000 * (time.perf_counter() - start)
    match event:
        case TextEvent(text=text):
            print(f"{after:6.0f} ms  text   {text!r}")
        case AudioEvent(audio=audio, sample_rate=rate):
            print(f"{after:6.0f} ms  sound  {len(audio) / rate:.2f} s")

# %% [markdown]
# ## 6. Type, or have a text read
#
# `answer` takes a typed question, `say` reads any English text. `pace=1.2` speaks a fifth faster, and
# `temperature` and `seed` give other readings.

# %%
typed = model.answer("What is the capital of Norway?", steps=1)
print(typed.text)
display(Audio(typed.audio, rate=typed.sample_rate))

spoken = model.say("It cost $2.50 on May 3rd, at 10:15 a.m.", steps=4, pace=1.2)
display(Audio(spoken.audio, rate=spoken.sample_rate))

# %% [markdown]
# ## What to try next
#
# * Ask the same thing in a noisy room, or with a thick accent, and read what it heard.
# * `model.chat(question, steps=2)`: is there an S at which *you* hear a difference?
# * Another text model between the ear and the voice: `mdmspeech.load("compact",
#   thinker="Qwen/Qwen2.5-0.5B-Instruct")`, after downloading it with `hf download Qwen/Qwen2.5-0.5B-Instruct`.
# * **your_voice.ipynb**: make it speak like you. **scale.ipynb**: what an 8B model of this kind would need.
