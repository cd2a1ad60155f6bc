# %% [markdown]
# # Train a stage on one machine
#
# The Talker, the part that fills masked speech tokens, learns from nothing. Choose *Runtime > Change runtime
# type > TPU* before you start. A GPU works as well, and so does any machine of your own. On a CPU it is slow
# but the same.
#
# You will
#
# 1. make a small corpus,
# 2. train, **kill the run in the middle**, and watch it go on where it was,
# 3. see what it learnt and where the time went,
# 4. hear it,
# 5. see the command that does the same on a pod.
#
# One command does all of it on one chip or on a thousand: only the numbers in a mesh differ.

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
# One thing to know about TPUs: a chip belongs to one process. The training runs in processes of its own, so this
# notebook itself must leave the chip alone, and says so before it imports JAX.

# %%
os.environ["JAX_PLATFORMS"] = "cpu"  # of this notebook; its commands get the accelerator
import shutil

from IPython.display import Audio, display

import mdmspeech
from experiments.colab import figures, helpers

SMALL = helpers.small()  # the tests run this notebook in small
machine = {"JAX_PLATFORMS": "cpu" if SMALL else ""}
workdir = helpers.home() / "runs" / "notebook" / "talker"
shipped = mdmspeech.load("compact")

# %% [markdown]
# ## 1. A corpus
#
# The shipped voice reads short sentences; the command then finds out when each sound is spoken and makes speech
# tokens. A real corpus has hours (`make data`, docs/data.md); this one takes minutes.

# %%
helpers.said_corpus(shipped, "said", 16 if SMALL else 400)

# %% [markdown]
# ## 2. Train, and pull the plug
#
# The task: hide between 30 % and all of the tokens, and guess them from the sounds they should make and the
# tokens that are left. This is masked diffusion. We stop the run with `kill -9`, as a pod does when it is taken
# away, and start the same command again.

# %%
STEPS, SAVE = (8, 2) if SMALL else (600, 50)
SIZE = (
    "--set talker.dim=64 --set talker.num_layers=1 --set talker.ffn_dim=128 --set data.batch=4"
    if SMALL
    else ""
)
command = (
    f"mdmspeech train --config experiments/compact_talker.py --workdir {workdir} --set data.parts=said"
    f" --set train.steps={STEPS} --set train.save_every={SAVE} --set train.log_every={SAVE}"
    f" --set train.eval_every=0 --set optim.warmup={SAVE} {SIZE}"
)

shutil.rmtree(workdir, ignore_errors=True)
killed_at = helpers.kill_after_checkpoint(command, workdir, **machine)
print(f"killed; the newest checkpoint is of step {killed_at}")

# %%
printed = helpers.run(command, **machine)
assert f"resumed at step {killed_at}" in printed

# %% [markdown]
# The first line says where it went on. The state, the random key and the position in the data were in the
# checkpoint: on the same machine the run ends bit for bit as if nothing had happened (`make killtest` checks
# that thirty times).
#
# ## 3. What it learnt
#
# *Loss* in nats a hidden token; blind guessing costs 8.8. *Accuracy* is the share of hidden tokens it guesses
# exactly.

# %%
shown = {"loss": "train/token", "accuracy": "train/accuracy", "MFU": "train/mfu"}
figures.curves({title: helpers.curve(workdir, name) for title, name in shown.items()})

# %% [markdown]
# *MFU* is the share of the chip's arithmetic that is put to use. A tiny model on a large chip has little: there
# is not enough to compute. Where did the rest of the time go? The run keeps a ledger, over all its starts.

# %%
figures.ledger(workdir)

# %% [markdown]
# ## 4. Hear it
#
# The new Talker with the shipped codec, beside the shipped Talker, which read 27 hours. The new one has read a
# few hundred sentences of one pattern, each a hundred times: this sentence follows the pattern. Try one that
# does not. (In small mode it has made eight steps, so it makes noise.)

# %%
release = workdir.parent / "release"
helpers.run(f"mdmspeech release -o {release} --base compact --talker {workdir}")
learnt = mdmspeech.load(str(release))
for title, model in (("from nothing, just now", learnt), ("shipped", shipped)):
    speech = model.say("The old farmer waited near the bridge.", steps=4)
    print(title)
    display(Audio(speech.audio, rate=speech.sample_rate))

# %% [markdown]
# ## 5. The same on a pod
#
# The launcher prints what it would do, and does it only with `--go`. It deletes the slice when training is
# done, or after `--max-hours`.

# %%
helpers.run(
    "python launch/queued.py --name talker --config experiments/talker_1b.py --workdir gs://my-bucket/talker"
    " --project my-project --zone us-east5-a --tpu v5p:4x4x4"
)

# %% [markdown]
# ## What to try next
#
# * Stage 3, distillation, makes the Talker good in few steps: `experiments/compact_talker_isd.py`.
# * Any experiment runs in small on random data, the 8B ones too:
#   `mdmspeech train --config experiments/talker_isd_8b.py:runlocal --workdir /tmp/try`.
# * `--set mesh.fsdp=8` on a machine with eight chips splits the weights over them.
# * **scale.ipynb** plans the 8B stages for a slice before you rent it.
