// The server by the Realtime protocol: docs/realtime.md.

import { fromBase64, SHORTEST, toBase64 } from "./sound.js";

const OPENS_IN = 5000; // ms; then there is no WebSocket on this way
const ANSWER = "answer-"; // and a question's name: the event that asks for its answer

export class Realtime {
  // told: {closed, started, stopped, committed, refused, cleared, heard, answering, text, audio, blocks, ended, error}
  constructor(told) {
    this.told = told;
    this.items = new Map(); // of answers: item -> response
    this.running = new Set(); // responses that are being made, and that nobody has cancelled
    this.waiting = null; // a question that is to be answered once nothing else is
    this.heard = 0; // samples since the last commit
  }

  // Resolves when it is open; rejects with {code} when it is refused or does not come about.
  open(key) {
    const url = new URL("v1/realtime", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    const names = key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"];
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(url, names);
      const late = setTimeout(() => socket.close(), OPENS_IN);
      let open = false;
      socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        if (event.type === "session.created") {
          open = true;
          clearTimeout(late);
          this.socket = socket;
          resolve(event.session);
        }
        this.take(event);
      };
      socket.onclose = ({ code, reason }) => {
        clearTimeout(late);
        this.socket = null;
        if (open) this.told.closed(code, reason);
        else reject({ code, reason });
      };
    });
  }

  close() {
    this.socket?.close(1000);
  }

  send(type, fields = {}) {
    this.socket?.send(JSON.stringify({ type, ...fields }));
  }

  settings({ steps, pace, free }) {
    const input = { transcription: {}, turn_detection: free ? { type: "server_vad" } : null };
    const session = {
      type: "realtime",
      audio: { input, output: { steps, speed: pace } },
      include: ["response.output_audio.tokens"],
    };
    this.send("session.update", { session });
  }

  hear(buffer) {
    this.heard += buffer.byteLength / 2;
    this.send("input_audio_buffer.append", { audio: toBase64(buffer) });
  }

  forget() {
    this.heard = 0;
    this.send("input_audio_buffer.clear");
  }

  // What was heard is a question of this name; false: it is too short to be one.
  commit(name) {
    if (this.heard < SHORTEST) return false;
    this.heard = 0;
    this.send("input_audio_buffer.commit", { event_id: name });
    this.respond(name);
    return true;
  }

  ask(name, text) {
    const content = [{ type: "input_text", text }];
    this.send("conversation.item.create", { item: { type: "message", role: "user", content } });
    this.respond(name);
  }

  // The name comes back with the answer, or with an error.
  respond(name) {
    const response = { metadata: { turn: name } };
    this.send("response.create", { event_id: ANSWER + name, response });
  }

  // No more of it is made. Of one that is over nothing is said: it would be said of the next one.
  cancel(response) {
    if (this.running.delete(response)) this.send("response.cancel", { response_id: response });
  }

  // Only so many seconds of it were played; no more is remembered.
  played(response, seconds) {
    for (const [item, made] of this.items) {
      if (made === response) {
        const audio_end_ms = Math.round(1000 * seconds);
        this.send("conversation.item.truncate", { item_id: item, content_index: 0, audio_end_ms });
      }
    }
  }

  // The server answers one question at a time: this one comes next, and what is answered now ends.
  wait(name) {
    this.waiting = name;
    for (const response of this.running) this.cancel(response);
  }

  // Something is answered no longer.
  next() {
    const name = this.waiting;
    this.waiting = null;
    if (name !== null) this.respond(name);
  }

  take(event) {
    const handle = Realtime.events[event.type];
    if (handle) handle(this, event);
  }

  static events = {
    "input_audio_buffer.speech_started": (me, event) =>
      me.told.started(event.item_id, me.items.get(event.interrupted_item_id)),
    "input_audio_buffer.speech_stopped": (me) => me.told.stopped(),
    "input_audio_buffer.committed": (me, event) => me.told.committed(event.item_id),
    "input_audio_buffer.cleared": (me) => me.told.cleared(),
    "conversation.item.input_audio_transcription.completed": (me, event) =>
      me.told.heard(event.item_id, event.transcript),
    "conversation.item.input_audio_transcription.failed": (me, event) =>
      me.told.heard(event.item_id, null),
    "response.created": (me, event) => {
      const { id, metadata } = event.response;
      me.running.add(id);
      me.told.answering(id, metadata?.turn);
      if (me.waiting !== null) me.cancel(id);
    },
    "response.output_item.added": (me, event) => me.items.set(event.item.id, event.response_id),
    "response.output_audio_transcript.delta": (me, event) =>
      me.told.text(event.response_id, event.delta),
    "response.output_audio.delta": (me, event) => {
      me.told.audio(event.response_id, fromBase64(event.delta));
      if (event.blocks) me.told.blocks(event.response_id, event.blocks);
    },
    "response.done": (me, event) => {
      const { id, status, status_details: details, mdmspeech: own } = event.response;
      me.running.delete(id);
      const reason = details?.reason ?? status;
      me.told.ended(id, reason, own ?? {}, details?.error?.message);
      me.next();
    },
    error: (me, { error: { code, message, event_id: about } }) => {
      if (code === "response_cancel_not_active") return; // it ended while that was on its way
      const asked = about?.startsWith(ANSWER) ? about.slice(ANSWER.length) : null;
      if (asked !== null && code === "conversation_already_has_active_response") {
        me.wait(asked);
        return;
      }
      me.told.refused(about);
      me.told.error(message);
      if (asked !== null) me.next();
    },
  };
}
