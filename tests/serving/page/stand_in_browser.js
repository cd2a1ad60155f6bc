// The page's own main.js without a browser: elements that only remember what was done to them, a
// socket and a loudspeaker that the test speaks for, an HTTP server that it answers for.

import assert from "node:assert/strict";

class Element {
  constructor(text = "") {
    Object.assign(this, { textContent: text, value: "", hidden: false, disabled: false });
    this.children = [];
    this.parts = new Map(); // by selector
    this.told = new Map(); // by event
    this.style = { setProperty() {} };
    this.classList = { add() {}, remove() {} };
  }

  querySelector(selector) {
    if (!this.parts.has(selector)) this.parts.set(selector, new Element());
    return this.parts.get(selector);
  }

  append(...added) {
    for (const one of added) {
      if (typeof one === "string") this.textContent += one;
      else this.children.push(Object.assign(one, { parent: this }));
    }
  }

  remove() {
    this.parent.children = this.parent.children.filter((one) => one !== this);
  }

  replaceChildren(...added) {
    this.children = [];
    this.append(...added);
  }

  addEventListener(name, listener) {
    this.told.set(name, listener);
  }

  fire(name, event = {}) {
    return this.told.get(name)({ preventDefault() {}, ...event });
  }

  cloneNode() {
    return { firstElementChild: new Element() };
  }

  get content() {
    return this;
  }

  setAttribute() {}
  scrollIntoView() {}
  focus() {}
}

const elements = new Map();
export const find = (id) => {
  if (!elements.has(id)) elements.set(id, new Element());
  return elements.get(id);
};
const ways = { free: new Element(), push: new Element() };
for (const [value, way] of Object.entries(ways)) Object.assign(way, { value, checked: value === "free" });

const document = new Element();
document.baseURI = "http://page.test/";
document.getElementById = find;
document.createElement = () => new Element();
document.querySelectorAll = () => Object.values(ways);
document.querySelector = (selector) => {
  if (!selector.includes(":checked")) return ways[selector.match(/value=(\w+)/)[1]];
  return Object.values(ways).find((way) => way.checked);
};
Object.assign(find("steps"), { value: "0" });
Object.assign(find("pace"), { value: "1" });

// ---- The loudspeaker and the microphone ----------------------------------------------------------

// What the page has told the loudspeaker, oldest first; it says nothing by itself.
export const player = { told: [], says: null };
// A piece of what the microphone hears.
export const microphone = { hears: null };

class Node {
  constructor(_, name) {
    this.port = { postMessage: (data) => name === "playback" && player.told.push(data) };
    const says = (data) => this.port.onmessage({ data: { now: null, played: 0, gaps: 0, ...data } });
    if (name === "playback") player.says = says;
    else microphone.hears = (ms) => says({ level: 0.5, samples: new Int16Array(24 * ms).buffer });
  }

  connect() {
    return this;
  }

  disconnect() {}
}

class AudioContext {
  state = "running";
  audioWorklet = { addModule: async () => {} };
  createMediaStreamSource = () => new Node();
}

// ---- The server ----------------------------------------------------------------------------------

// sent: events of the page, oldest first.
export const socket = { sent: [], says: null };

class Socket {
  constructor() {
    socket.says = (type, fields) => this.onmessage({ data: JSON.stringify({ type, ...fields }) });
    setImmediate(() => socket.says("session.created", { session: { model: "small" } }));
  }

  send(text) {
    socket.sent.push(JSON.parse(text));
  }

  close() {}
}

// Requests for answers, oldest first: {messages, aborted, refuse(code), says(delta), ends()}.
export const requests = [];
// What the next recordings are transcribed as; null: the server's ear makes no text.
export const transcripts = [];

async function fetch(url, { body, signal } = {}) {
  if (url === "v1/models") return Response.json({ data: [{ id: "small" }] });
  if (url === "v1/audio/transcriptions") {
    assert.ok(body.get("file").size > 44 && body.get("model") === "small");
    const text = transcripts.shift() ?? null;
    return text === null ? Response.json({ error: {} }, { status: 400 }) : Response.json({ text });
  }
  assert.equal(url, "v1/chat/completions");
  const request = { ...JSON.parse(body), aborted: false };
  requests.push(request);
  return new Promise((resolve, reject) => {
    let out = null;
    const stream = new ReadableStream({ start: (controller) => (out = controller) });
    signal.addEventListener("abort", () => {
      request.aborted = true;
      reject(signal.reason);
      out.error(signal.reason);
    });
    const write = (text) => {
      resolve(new Response(stream));
      out.enqueue(new TextEncoder().encode(`data: ${text}\n\n`));
    };
    request.says = (audio) => write(JSON.stringify({ choices: [{ delta: { audio } }] }));
    request.ends = () => {
      write("[DONE]");
      out.close();
    };
    request.refuse = (code) => resolve(Response.json({ error: { code, message: code } }, { status: 400 }));
  });
}

// ---- Whoever sits in front of it -----------------------------------------------------------------

// Once all that can happen by itself has happened: nothing here waits for time or for other threads.
export async function soon() {
  for (let round = 0; round < 50; round++) await new Promise((resolve) => setImmediate(resolve));
}

// way: "socket" or "http".
export async function open(way) {
  Object.assign(globalThis, {
    document, fetch, AudioContext, AudioWorkletNode: Node, location: {},
    window: { isSecureContext: true }, sessionStorage: { getItem: () => null, setItem() {} },
    URL: Object.assign(URL, { createObjectURL: () => "blob:" }),
  });
  delete globalThis.WebSocket;
  if (way === "socket") globalThis.WebSocket = Socket;
  const navigator = { mediaDevices: { getUserMedia: async () => ({ getTracks: () => [] }) } };
  Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true });
  await import("./main.js");
  await soon();
  assert.equal(window.mdmspeech.connected, way);
  socket.sent.length = 0;
}

export async function ask(text) {
  find("say").value = text;
  await find("say-form").fire("submit");
}

export async function pushToTalk() {
  [ways.free.checked, ways.push.checked] = [false, true];
  ways.push.fire("input");
  await find("microphone").fire("click");
  socket.sent.length = 0;
}

export function holdFor(ms) {
  find("hold").fire("pointerdown");
  microphone.hears(ms);
  find("hold").fire("pointerup");
}

// Rows as [question, answer].
export function rows() {
  const text = (row, ...path) => path.reduce((part, name) => part.querySelector(name), row).textContent;
  return find("log").children.map((row) => [text(row, ".you span"), text(row, ".it", ".text")]);
}

export function notice() {
  return find("notice").hidden ? "" : find("notice").textContent;
}

// ---- What a server says over the socket ----------------------------------------------------------

// To what of the page it is an answer: its last response.create, or null if the server begins it.
export function answering(id, asked = socket.sent.findLast((event) => event.type === "response.create")) {
  const metadata = asked?.response?.metadata ?? null;
  socket.says("response.created", { response: { id, metadata } });
}

export function saying(id, text) {
  socket.says("response.output_item.added", { item: { id: `item-of-${id}` }, response_id: id });
  socket.says("response.output_audio_transcript.delta", { response_id: id, delta: text });
  const delta = Buffer.from(new Int16Array(2400).buffer).toString("base64");
  socket.says("response.output_audio.delta", { response_id: id, delta });
}

export function done(id, reason) {
  const status_details = reason ? { reason } : null;
  const status = reason ? "cancelled" : "completed";
  socket.says("response.done", { response: { id, status, status_details } });
}

export function refused(event, code) {
  socket.says("error", { error: { code, message: code, event_id: event?.event_id ?? null } });
}

export function transcribed(item_id, transcript) {
  socket.says("conversation.item.input_audio_transcription.completed", { item_id, transcript });
}
