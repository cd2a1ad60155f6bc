# %% [markdown]
# # Scale: plan large, try small
#
# How many chips does an 8-billion-parameter speech model need? How long is a step? How good will it be? Pods
# are expensive, so answer these *before* renting one. This notebook does it on a machine without any
# accelerator, in two ways.
#
# 1. **Plan.** The real training step is compiled by the real TPU compiler, for a slice that is not here. The
#    compiler tells what each chip would hold and send. Nothing runs.
# 2. **Ladder.** A few tiny models are really trained. A law through their losses says what a larger one would
#    reach.

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
install = [sys.executable, "experiments/colab/install.py", "data", "plan"]
done = subprocess.run(install, capture_output=True, text=True)
print(done.stdout, done.stderr[-3000:])
assert done.returncode == 0, "the installation failed: the reason is above"
# %%
os.environ["JAX_PLATFORMS"] = "cpu"  # this notebook leaves an accelerator to its commands
import json
import tempfile

import mdmspeech
from experiments.colab import figures, helpers

SMALL = helpers.small()  # the tests run this notebook in small
machine = {"JAX_PLATFORMS": "cpu" if SMALL else ""}
work = tempfile.mkdtemp(prefix="scale-")

# %% [markdown]
# ## 1. A plan
#
# The stage: teach an 8B text model (Qwen3-8B) to hear, through an adaptor and a LoRA. The slices: `v5e-16` is
# 16 small chips with 16 GiB each, `v5p-8` is four large ones (the name counts cores, two a chip) with 95 GiB
# each. A *mesh* says how the chips share the work: `data` splits the batch, `fsdp` also splits the weights. One
# of the three does not fit: can you guess which, and why? A plan takes a minute or two.

# %%
CONFIG = "experiments/talker_06b.py:runlocal" if SMALL else "experiments/thinker_8b.py"
SLICES = (
    ["v5e:1x1 --mesh data=1"]
    if SMALL
    else [
        "v5e-16 --mesh data=16,fsdp=1 --rows 32",
        "v5e-16 --mesh data=4,fsdp=4 --rows 32",
        "v5p-8 --mesh data=4,fsdp=1 --rows 8",
    ]
)

plans = []
for number, chips in enumerate(SLICES):
    out = f"{work}/plan{number}.json"
    # a plan that does not fit ends with exit code 1, and is worth seeing as well
    helpers.run(
        f"mdmspeech plan --config {CONFIG} --topology {chips} --quick --json {out}", allowed=(0, 1)
    )
    with open(out) as file:
        plans += json.load(file)

# %% [markdown]
# ## 2. Read it
#
# First question: does it fit? Weights and the optimizer's numbers are split over chips and shrink with more of
# them. *Temporaries*, what the forward pass keeps for the backward pass, shrink with fewer rows a chip.

# %%
figures.memory(plans)

# %% [markdown]
# Second question: what does a step wait for? A chip computes, reads its memory, and waits for other chips, at
# the same time. The slowest of the three bounds the step from below (left end of the red line); if nothing
# overlaps, it takes as long as the right end. If *computing* is the longest bar, you pay for arithmetic: good.
# If *links* is, use a smaller `fsdp`.

# %%
figures.step_bounds(plans)

# %%
for plan in plans:
    bounds = plan["roofline"]
    if not bounds:
        print(f"{plan['slice_name']}: does not fit")
        continue
    print(
        f"{plan['slice_name']}: {bounds['rate_low']:,.0f} to {bounds['rate']:,.0f} {plan['unit']} a second,"
    )
    print(
        f"  {bounds['mfu_low']:.0%} to {bounds['mfu']:.0%} of the arithmetic the chips could do (MFU)"
    )

# %% [markdown]
# These are bounds, not measurements. The table of plans of all stages on many slices is in
# `experiments/results/plan.md`.
#
# From speed to money: passes over the data times tokens, over the rate, times the price. `mdmspeech cost --size
# 8b --chip v5e` plans every stage of the recipe, for some minutes; this is what it wrote:

# %%
from IPython.display import Markdown, display

with open("experiments/results/cost_v5e.md") as file:
    display(Markdown(file.read()))

# %% [markdown]
# ## 3. A ladder, live
#
# Now the other question: how good will it be? We train tiny Talkers. Their corpus is made here: the shipped
# voice reads sentences to them. Every size is trained once, and its learning rate falls to zero at several
# *budgets* of tokens: one run gives several points.

# %%
COUNT, WIDTHS, BUDGETS = (16, "64", "4e3,8e3") if SMALL else (300, "64,96,128", "2e4,4e4,8e4")

helpers.said_corpus(mdmspeech.load("compact"), "said", COUNT)

# %%
helpers.run(
    "mdmspeech ladder run --config experiments/ladder.py:batch=2,head=32,part=said"
    f" --layers 1 --widths {WIDTHS} --budgets {BUDGETS} --workdir {work}/ladder --set optim.warmup=2",
    **machine,
)

# %%
with open(f"{work}/ladder/ladder.jsonl") as file:
    live = [json.loads(line) for line in file]
figures.ladder(live, None, "trained in this notebook")

# %% [markdown]
# The loss is in nats a token: how surprised the model is by held-out speech. Guessing blindly among the 6,561
# codes costs ln(6561) = 8.8. It falls with every doubling of tokens. That it does so *regularly* is what makes
# it possible to predict.
#
# ## 4. A ladder, measured, and its law
#
# The repository has a ladder of twelve runs on hours of speech (two CPU cores,
# `experiments/results/ladder.md`). Through such points goes
#
# $$L = E + A / N^\\alpha + B / D^\\beta$$
#
# with N parameters and D tokens: what no model gets below, plus what is missing in size, plus what is missing
# in data.

# %%
with open("experiments/results/ladder.json") as file:
    measured = json.load(file)["rows"]
with open(f"{work}/measured.jsonl", "w") as file:
    file.writelines(json.dumps(row) + "\n" for row in measured)

fitted = helpers.run(f"mdmspeech ladder fit {work}/measured.jsonl --predict 5e6:2e7")

# %%
with open(f"{work}/measured.json") as file:
    law = json.load(file)
figures.ladder(measured, law["law"], "12 runs and the law through them")

# %% [markdown]
# Is it any good? The honest test: hide the largest size, fit the others, and predict it.

# %%
for rung in law["held_out"]:
    print(
        f"{rung['rung']}: predicted {rung['predicted']:.2f} ({rung['low']:.2f} to {rung['high']:.2f}),"
        f" measured {rung['loss']:.2f}, {'inside' if rung['inside'] else 'OUTSIDE'}"
    )

# %% [markdown]
# Look at the intervals in the table above, too. Twelve tiny runs fix the exponents badly, and a prediction far
# beyond the largest size is as good as the law, not as its interval.
#
# ## What to try next
#
# * `--sweep` after a plan tries several meshes and names the best that fits.
# * `--what decode --topology v5e:1x1`: how fast would it *speak*, at every S?
# * More budgets and widths in the ladder: docs/scaling.md tells how to run one that deserves trust.
# * **train_on_tpu.ipynb** trains a stage for real.
