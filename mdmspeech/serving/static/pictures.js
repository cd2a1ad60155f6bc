// What an answer took, and how its tokens were unmasked.

const STAGES = ["encoder", "adaptor", "thinker_prefill", "thinker_decode", "talker", "codec", "other"];
const SQUARE = 10; // pixels of a token

// Bars of the stages until the first sound: own is `response.mdmspeech`.
export function latency(place, own) {
  const total = own.first_audio_ms;
  if (total === null || total === undefined) return;
  const stages = own.stages_ms ?? {};
  const known = STAGES.filter((name) => stages[name]);
  const sum = known.reduce((all, name) => all + stages[name], 0);
  const told = document.createElement("p");
  told.className = "hint";
  told.textContent = `first sound after ${total} ms`;
  const bar = document.createElement("div");
  bar.className = "bar";
  bar.setAttribute("aria-hidden", "true");
  const list = document.createElement("ul");
  for (const name of known) {
    const part = document.createElement("span");
    part.className = `stage-${STAGES.indexOf(name)}`;
    part.style.setProperty("flex", `${stages[name] / Math.max(sum, 1)}`);
    bar.append(part);
    const item = document.createElement("li");
    item.className = part.className;
    item.textContent = `${name.replaceAll("_", " ")} ${stages[name]} ms`;
    list.append(item);
  }
  place.replaceChildren(told, ...(known.length ? [bar, list] : []));
  place.hidden = false;
}

// Squares of tokens, a column a block; step 0 is the first.
export class Reveal {
  constructor(place) {
    this.place = place;
    this.canvas = place.querySelector("canvas");
    this.blocks = [];
  }

  add(blocks) {
    this.blocks.push(...blocks);
    this.place.hidden = false;
    const height = Math.max(...this.blocks.map((block) => block.tokens.length));
    this.canvas.width = this.blocks.length * (SQUARE + 2);
    this.canvas.height = height * SQUARE;
    const most = Math.max(1, ...this.blocks.flatMap((block) => block.steps));
    const pen = this.canvas.getContext("2d");
    this.blocks.forEach((block, x) => {
      block.steps.forEach((step, y) => {
        pen.fillStyle = `hsl(211 55% ${72 - (44 * step) / most}%)`;
        pen.fillRect(x * (SQUARE + 2), y * SQUARE, SQUARE, SQUARE - 1);
      });
    });
    const steps = this.blocks.map((block) => Math.max(...block.steps) + 1);
    const tokens = this.blocks.reduce((sum, block) => sum + block.tokens.length, 0);
    this.canvas.setAttribute(
      "aria-label",
      `${tokens} tokens in ${this.blocks.length} blocks of ${steps.join(", ")} steps`,
    );
  }
}
