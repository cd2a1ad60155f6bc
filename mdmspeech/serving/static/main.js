// The page: buttons, the conversation as it comes, and who speaks.

import { Answers } from "./answers.js";
import { OverHttp } from "./over_http.js";
import { latency, Reveal } from "./pictures.js";
import { Realtime } from "./realtime.js";
import { RATE, Sound, wav } from "./sound.js";
import { Turns } from "./turns.js";

const STEPS = ["auto", 1, 2, 4, 8, 16];
const find = (id) => document.getElementById(id);
const page = {
  status: find("status"), notice: find("notice"), log: find("log"), level: find("level"),
  microphone: find("microphone"), hold: find("hold"), stop: find("stop"), ask: find("ask"),
  say: find("say"), steps: find("steps"), pace: find("pace"), keyForm: find("key-form"),
};

// What tests and curious people look at.
const state = { connected: "", answers: 0, gaps: 0, played: 0, first: null, speaking: null, listening: false };
window.mdmspeech = state;

let server = null;
let key = sessionStorage.getItem("key") ?? "";
const sound = new Sound(reported);
const answers = new Answers(sound);
const turns = new Turns(newTurn, (row) => row.remove());

// ---- The connection ------------------------------------------------------------------------------

const told = {
  closed(code, reason) {
    off(`the connection has ended (${reason || code}); reload the page to connect again`);
  },
  started(item, interrupted) {
    if (interrupted) answers.stop(interrupted);
    turns.began(item);
    status("listening to you");
  },
  stopped() {
    status("thinking");
  },
  committed(item) {
    turns.committed(item);
  },
  refused(name) {
    turns.refused(name);
  },
  cleared() {
    turns.cleared();
  },
  heard(item, text) {
    const row = turns.of(item);
    if (!row) return;
    row.querySelector(".you span").textContent = text === null ? "(not written down)" : text || "(no words)";
    if (text === "") quiet();
  },
  answering(id, name) {
    const it = turns.answered(name).querySelector(".it");
    it.hidden = false;
    answers.begin(id, { it, reveal: new Reveal(it.querySelector(".reveal")) });
    page.stop.disabled = false;
  },
  text(id, piece) {
    answers.get(id).it.querySelector(".text").append(piece);
  },
  audio(id, samples) {
    answers.put(id, samples);
  },
  blocks(id, blocks) {
    answers.get(id).reveal.add(blocks);
  },
  ended(id, reason, own, message) {
    const answer = answers.get(id);
    if (!answer) return;
    if (reason === "turn_detected" || reason === "client_cancelled") answers.stop(id);
    answers.end(id);
    const names = { turn_detected: "interrupted", client_cancelled: "stopped", failed: "failed" };
    const ending = [names[reason], message].filter(Boolean).join(": ");
    answer.it.querySelector(".ended").textContent = ending && `(${ending})`;
    latency(answer.it.querySelector(".latency"), own);
    if (answer.pieces.length) download(answer);
    state.answers += 1;
    if (state.speaking === null) quiet();
  },
  error(message) {
    notice(message);
  },
};

async function connect() {
  status("connecting ...");
  try {
    answers.server = server = new Realtime(told);
    const session = await server.open(key);
    await opened("socket", session.model);
  } catch (refused) {
    try {
      answers.server = server = new OverHttp(told);
      const { model } = await server.open(key);
      await opened("http", model, refused);
    } catch (error) {
      const wantsKey = error.status === 401;
      page.keyForm.hidden = !wantsKey;
      if (wantsKey) find("key").focus();
      const busy = refused.code === 1013 ? "all places are taken; try again in a while" : "";
      off(wantsKey ? "a key is needed" : busy || "the server cannot be reached");
    }
  }
}

async function opened(way, model, refused) {
  state.connected = way;
  page.keyForm.hidden = true;
  if (key) sessionStorage.setItem("key", key);
  if (way === "http") {
    const why = refused.code === 1013 ? refused.reason : "no WebSocket passes here";
    notice(`${why}: over HTTP it hears you while you hold the button, and cannot be interrupted by voice.`);
    document.querySelector("input[value=push]").checked = true;
    document.querySelector("input[value=free]").disabled = true;
  }
  settings();
  document.title = `Talk to ${model}`;
  page.ask.disabled = false;
  page.microphone.disabled = !window.isSecureContext;
  if (!window.isSecureContext) {
    notice(
      "Browsers give no microphone to pages over plain http from another machine. Open a tunnel, " +
        `ssh -L ${location.port || 80}:127.0.0.1:${location.port || 80} ${location.hostname}, and go to ` +
        `http://127.0.0.1:${location.port || 80}, or start the server with --ssl-certfile. Typing works.`,
    );
  }
  status(ready());
}

function off(why) {
  state.connected = "";
  for (const button of [page.microphone, page.hold, page.stop, page.ask]) button.disabled = true;
  deaf();
  status(why);
}

// ---- What one can do -----------------------------------------------------------------------------

const free = () => document.querySelector("input[name=turns]:checked").value === "free";

function settings() {
  if (free()) release();
  const steps = STEPS[Number(page.steps.value)];
  find("steps-shown").textContent = steps;
  page.steps.setAttribute("aria-valuetext", String(steps));
  find("pace-shown").textContent = Number(page.pace.value).toFixed(1);
  page.hold.hidden = free();
  page.hold.disabled = !state.listening;
  server?.settings({ steps, pace: Number(page.pace.value), free: free() });
}

async function microphone() {
  if (state.listening) {
    deaf();
    return;
  }
  try {
    await sound.listen(heard);
  } catch (error) {
    notice(`The microphone cannot be used (${error.message}). Typing works.`);
    return;
  }
  state.listening = true;
  page.microphone.textContent = "Stop the microphone";
  page.microphone.setAttribute("aria-pressed", "true");
  page.hold.disabled = false;
  status(ready());
}

function deaf() {
  sound.deaf();
  if (holding) release();
  state.listening = false;
  page.microphone.textContent = "Start the microphone";
  page.microphone.setAttribute("aria-pressed", "false");
  page.hold.disabled = true;
  page.level.value = 0;
}

let holding = false;

function heard({ level, samples }) {
  page.level.value = Math.min(1, 4 * level);
  if (free() || holding) server.hear(samples);
}

function hold() {
  if (holding || page.hold.disabled || page.hold.hidden) return;
  silence();
  server.forget();
  holding = true;
  page.hold.classList.add("on");
  status("listening to you");
}

function release() {
  if (!holding) return;
  holding = false;
  page.hold.classList.remove("on");
  const name = turns.pushed();
  if (server.commit(name)) {
    status("thinking");
  } else {
    turns.refused(name);
    quiet();
  }
}

async function ask(event) {
  event.preventDefault();
  const text = page.say.value.trim();
  if (!text || page.ask.disabled) return;
  await sound.open();
  silence();
  page.say.value = "";
  server.ask(turns.typed(text), text);
  status("thinking");
}

function silence() {
  answers.silence();
  page.stop.disabled = true;
}

// ---- What the loudspeaker tells ------------------------------------------------------------------

function reported(report) {
  const { now, played, gaps, began, finished, stopped, seconds } = report;
  state.gaps = gaps;
  state.speaking = now;
  if (now !== null) state.played = played;
  if (began !== undefined) status("speaking");
  if (seconds !== undefined) state.played = seconds;
  const answer = answers.reported(report);
  if (answer) {
    const made = answer.pieces.reduce((sum, piece) => sum + piece.length, 0) / RATE;
    state.first ??= [made, seconds]; // of the first answer: seconds that came, and that were played
  }
  if ((finished ?? stopped) !== undefined) quiet();
}

function quiet() {
  if (answers.live) return;
  page.stop.disabled = true;
  if (state.connected) status(ready());
}

// ---- What is shown -------------------------------------------------------------------------------

function ready() {
  if (!state.listening) return "ready";
  return free() ? "listening" : "hold the button, or the space bar, to talk";
}

function status(text) {
  page.status.textContent = text;
}

function notice(text) {
  page.notice.textContent = text;
  page.notice.hidden = !text;
}

function newTurn(question) {
  const made = find("turn").content.cloneNode(true).firstElementChild;
  made.querySelector(".you span").textContent = question;
  page.log.append(made);
  made.scrollIntoView({ block: "nearest" });
  return made;
}

function download({ it, pieces }) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(wav(pieces));
  link.download = "answer.wav";
  link.textContent = "Download the answer";
  it.querySelector(".links").replaceChildren(link);
}

page.microphone.addEventListener("click", microphone);
page.stop.addEventListener("click", silence);
find("say-form").addEventListener("submit", ask);
page.keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  key = find("key").value;
  connect();
});
for (const input of [page.steps, page.pace, ...document.querySelectorAll("input[name=turns]")]) {
  input.addEventListener("input", settings);
}
page.hold.addEventListener("pointerdown", hold);
for (const name of ["pointerup", "pointercancel", "pointerleave"]) page.hold.addEventListener(name, release);
const typing = () => ["INPUT", "BUTTON"].includes(document.activeElement?.tagName) && document.activeElement !== page.hold;
document.addEventListener("keydown", (event) => {
  if (event.code !== "Space" || typing() || page.hold.hidden) return;
  event.preventDefault();
  if (!event.repeat) hold();
});
document.addEventListener("keyup", (event) => {
  if (event.code === "Space" && holding) {
    event.preventDefault();
    release();
  }
});
connect();
