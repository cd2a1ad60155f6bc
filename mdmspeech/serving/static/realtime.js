// The server by the Realtime protocol: docs/realtime.md.

import { fromBase64, toBase64 } from "./sound.js";

const OPENS_IN = 5000; // ms; then there is no WebSocket on this way

export class Realtime {
  // told: {status, opened, closed, started, stopped, heard, answering, text, audio, blocks, ended, error}
  constructor(told) {
    this.told = told;
    this.items = new Map(); // of answers: item -> response
    this.running = false;
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
        this.running = false;
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
    this.send("input_audio_buffer.append", { audio: toBase64(buffer) });
  }

  forget() {
    this.send("input_audio_buffer.clear");
  }

  commit() {
    this.send("input_audio_buffer.commit");
    this.send("response.create");
  }

  ask(text) {
    const content = [{ type: "input_text", text }];
    this.send("conversation.item.create", { item: { type: "message", role: "user", content } });
    this.send("response.create");
  }

  // Only so many seconds of an answer were played; with them it ends.
  interrupt(response, seconds) {
    if (this.running) this.send("response.cancel");
    for (const [item, made] of this.items) {
      if (made === response) {
        const audio_end_ms = Math.round(1000 * seconds);
        this.send("conversation.item.truncate", { item_id: item, content_index: 0, audio_end_ms });
      }
    }
  }

  take(event) {
    const handle = Realtime.events[event.type];
    if (handle) handle(this, event);
  }

  static events = {
    "input_audio_buffer.speech_started": (me, event) =>
      me.told.started(me.items.get(event.interrupted_item_id)),
    "input_audio_buffer.speech_stopped": (me) => me.told.stopped(),
    "conversation.item.input_audio_transcription.completed": (me, event) =>
      me.told.heard(event.transcript),
    "response.created": (me, event) => {
      me.running = true;
      me.told.answering(event.response.id);
    },
    "response.output_item.added": (me, event) => me.items.set(event.item.id, event.response_id),
    "response.output_audio_transcript.delta": (me, event) =>
      me.told.text(event.response_id, event.delta),
    "response.output_audio.delta": (me, event) => {
      me.told.audio(event.response_id, fromBase64(event.delta));
      if (event.blocks) me.told.blocks(event.response_id, event.blocks);
    },
    "response.done": (me, event) => {
      me.running = false;
      const { id, status, status_details: details, mdmspeech: own } = event.response;
      const reason = details?.reason ?? status;
      me.told.ended(id, reason, own ?? {}, details?.error?.message);
    },
    error: (me, event) => me.told.error(event.error.message),
  };
}
