# %% [markdown]
# # Your voice, from ten sentences
#
# The shipped model speaks with one voice. Here you give it yours: you read ten sentences (a minute of work), a
# short training follows, and you hear the same new sentence **before** and **after**.
#
# What is trained? Speech is made in two stages: the *Talker* decides what sounds to make (speech tokens), the
# *codec* decides how they sound (the wave). With ten sentences we only touch the second. That is enough for
# pitch and colour of a voice, not for its habits: for those take ten minutes of recordings and train both (at
# the end).
#
# Only use your own voice, or that of someone who agreed.

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
install = [sys.executable, "experiments/colab/install.py", "data"]
done = subprocess.run(install, capture_output=True, text=True)
print(done.stdout, done.stderr[-3000:])
assert done.returncode == 0, "the installation failed: the reason is above"
# %% [markdown]
# The notebook itself computes on the CPU and leaves a GPU or TPU, where there is one, to the training: such a chip
# belongs to one process.

# %%
os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX is imported
import shutil

from IPython.display import Audio, display

import mdmspeech
from experiments.colab import figures, helpers
from mdmspeech.data.texts.open_sentences import HARVARD

SMALL = helpers.small()  # the tests run this notebook in small
NAME = "mine"
STEPS = 25 if SMALL else 600
machine = {"JAX_PLATFORMS": "cpu" if SMALL else ""}  # of the training
runs = helpers.home() / "runs" / NAME
shipped = mdmspeech.load("compact")

# %% [markdown]
# ## 1. Ten sentences
#
# They are Harvard sentences, made in the 1940s to test telephones: together they have the sounds of English in
# about the right proportions. On Colab you are asked for one after the other; read calmly, and press *stop*
# after each.
#
# Nobody at the microphone? Then a stand-in speaks: the model's own voice, played slower, as if its owner were a
# quarter larger. It shows what the training does as well as a real voice does.

# %%
texts = list(HARVARD[:10])
recordings, recorded = [], True
for number, text in enumerate(texts, 1):
    found = helpers.record(8, f"{number} of {len(texts)}. Read: {text}") if recorded else None
    recorded = found is not None
    if not recorded:
        print("so a stand-in reads them all")
        recordings = [helpers.lowered(shipped.say, text) for text in texts]
        break
    recordings.append(found)

for text, found in zip(texts[:2], recordings, strict=False):
    print(text)
    display(helpers.player(found))

# %% [markdown]
# ## 2. From recordings to training data
#
# A folder of recordings and one list, `manifest.jsonl`, is all that is needed. The command below finds out when
# each sound is spoken (*alignment*), measures the pitch, and makes the speech tokens. Two recordings are held
# out: they are not trained on, so that we can see whether something general was learnt.

# %%
folder = helpers.home() / "recorded" / NAME
shutil.rmtree(folder, ignore_errors=True)
manifest = helpers.write_corpus(folder, recordings, texts)
print(manifest.read_text()[:300], "...")

# %%
helpers.run(f"mdmspeech data --manifest {manifest} --name {NAME}")

# %% [markdown]
# ## 3. Train
#
# The decoder of the codec starts from the shipped one and sees your recordings again and again. Losses to watch:
# `mel`, how far its spectrum is from yours, and `f0`, how far its pitch is.

# %%
workdir = runs / "codec"
shutil.rmtree(workdir, ignore_errors=True)  # so that this cell always trains anew
helpers.run(
    f"mdmspeech train --config experiments/own_voice_codec.py --workdir {workdir}"
    f" --set data.parts={NAME} --set data.batch=4 --set train.steps={STEPS} --set train.log_every=5",
    **machine,
)

# %%
shown = {"spectrum (mel)": "train/mel", "pitch (f0)": "train/f0", "all": "train/loss"}
figures.curves({title: helpers.curve(workdir, name) for title, name in shown.items()})

# %% [markdown]
# Steep at first, where pitch and colour are found, then flat, where details are.
#
# ## 4. Before and after, by ear
#
# A *release* is a folder with all parts of a model: here yours for the codec, and the shipped ones for all else.

# %%
helpers.run(f"mdmspeech release -o {runs / 'release'} --base compact --codec {workdir}")
yours = mdmspeech.load(str(runs / "release"))

new = HARVARD[20]  # not among the ten
before, after = (model.say(new, steps=4) for model in (shipped, yours))
print(new)
for title, audio, rate in (
    ("the shipped voice", before.audio, before.sample_rate),
    ("your voice, as recorded", *recordings[0]),
    ("your voice, as learnt", after.audio, after.sample_rate),
):
    print(title)
    display(Audio(audio, rate=rate))

# %% [markdown]
# ## 5. Before and after, by eye
#
# Left the pitch: how high, and how lively. Right the average spectrum: what makes a voice dark or bright. The
# learnt voice should have moved from the grey one to the black one.

# %%
others = [HARVARD[number] for number in (20, 22, 24)]
said = lambda model: [(one.audio, one.sample_rate) for one in map(model.say, others)]
waves = {"recorded": recordings, "before": said(shipped), "after": said(yours)}
figures.voices(waves)

# %%
median = {name: figures.median_pitch(found) for name, found in waves.items()}
print({name: f"{pitch:.0f} Hz" for name, pitch in median.items()})
moved = {name: abs(median[name] - median["recorded"]) for name in ("before", "after")}
print("the pitch is", "nearer" if moved["after"] < moved["before"] else "no nearer", "than before")

# %% [markdown]
# ## What to try next
#
# * More sentences: the same cells take thirty (`HARVARD[:30]`), or any folder with a `manifest.jsonl`.
# * With ten minutes of recordings train the Talker too, so that it learns your pauses and your pace, in three
#   commands (README, "Your own voice"): `mdmspeech data --manifest FILE --name mine`, then `make train-own
#   NAME=mine`, then speak.
# * Talk with it: `yours.chat("question.wav")` answers in your voice.
# * Measure it: `mdmspeech eval --own mine --model DIR` counts how many words a recogniser gets wrong.
