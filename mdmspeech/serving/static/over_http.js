// The same server where no WebSocket passes (Colab's proxy): a turn is one chat completion, whose
// answer comes as server-sent events. It hears only while you hold the button.

import { History, messages } from "./history.js";
import { fromBase64, SHORTEST, toBase64, wav } from "./sound.js";

export class OverHttp {
  constructor(told) {
    this.told = told;
    this.history = new History();
    this.pieces = [];
    this.running = new Map(); // what ends the request of each answer, by answer
  }

  async open(key) {
    this.headers = key ? { Authorization: `Bearer ${key}` } : {};
    const found = await fetch("v1/models", { headers: this.headers });
    if (!found.ok) throw { status: found.status };
    this.model = (await found.json()).data[0].id;
    return { model: this.model };
  }

  close() {
    for (const ender of this.running.values()) ender.abort();
  }

  settings(settings) {
    this.how = settings;
  }

  hear(buffer) {
    this.pieces.push(Float32Array.from(new Int16Array(buffer), (one) => one / 32768));
  }

  forget() {
    this.pieces = [];
  }

  // What was heard is a question of this name; false: it is too short to be one.
  commit(name) {
    const [pieces, item] = [this.pieces, `item-of-${name}`];
    this.pieces = [];
    if (pieces.reduce((sum, piece) => sum + piece.length, 0) < SHORTEST) return false;
    const recording = wav(pieces);
    this.told.committed(item);
    this.turn(name, null, recording).then((turn) => this.transcribe(turn, recording, item));
    return true;
  }

  ask(name, text) {
    this.turn(name, text);
  }

  // No more of it is made.
  cancel(id) {
    this.running.get(id)?.abort();
  }

  // An answer is remembered as far as it was written: what was heard of its words is not known here.
  played() {}

  async turn(name, text, recording) {
    const [id, turn, ender] = [`http-${name}`, this.history.add(text), new AbortController()];
    this.running.set(id, ender);
    this.told.answering(id, name);
    const began = performance.now();
    let [first, reason] = [null, "completed"];
    try {
      if (recording) {
        const data = toBase64(await recording.arrayBuffer());
        turn.question = [{ type: "input_audio", input_audio: { data, format: "wav" } }];
      }
      const response = await this.post(turn, ender.signal);
      for await (const event of events(response.body)) {
        ender.signal.throwIfAborted();
        if (event.error) throw new Error(event.error.message);
        const audio = event.choices?.[0]?.delta?.audio;
        if (audio?.transcript) {
          turn.answer += audio.transcript;
          this.told.text(id, audio.transcript);
        }
        if (audio?.data) {
          first ??= performance.now() - began;
          this.told.audio(id, fromBase64(audio.data));
        }
      }
    } catch (error) {
      reason = error.name === "AbortError" ? "client_cancelled" : "failed";
      if (reason === "failed") this.told.error(error.message);
    }
    this.running.delete(id);
    this.told.ended(id, reason, { first_audio_ms: first === null ? null : Math.round(first) });
    return turn;
  }

  // The response to a question. Of a conversation that is too long the older half is forgotten.
  async post(turn, signal) {
    for (let earlier = this.history.before(turn); ; ) {
      const response = await fetch("v1/chat/completions", {
        method: "POST",
        headers: { ...this.headers, "Content-Type": "application/json" },
        signal,
        body: JSON.stringify({
          model: this.model,
          messages: messages(earlier, turn),
          modalities: ["text", "audio"],
          audio: { voice: "default", format: "pcm16" },
          stream: true,
          speed: this.how.pace,
          ...(this.how.steps === "auto" ? {} : { steps: this.how.steps }),
        }),
      });
      if (response.ok) {
        this.history.turns = [...earlier, turn];
        return response;
      }
      const { error } = await response.json();
      const long = error.code === "context_length_exceeded" && earlier.length;
      if (!long) throw new Error(error.message);
      earlier = earlier.slice(Math.ceil(earlier.length / 2));
    }
  }

  // What was asked by voice, in words, for its row and for later questions; where the server's ear
  // makes none, the recording stays.
  async transcribe(turn, recording, item) {
    const body = new FormData();
    body.append("model", this.model);
    body.append("file", recording, "question.wav");
    let text = null;
    try {
      const response = await fetch("v1/audio/transcriptions", { method: "POST", headers: this.headers, body });
      if (response.ok) text = (await response.json()).text;
    } catch {
      // the answer was what mattered
    }
    if (text) turn.question = text;
    this.told.heard(item, text);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const line = text.slice(0, end).replace(/^data: /, "");
      text = text.slice(end + 2);
      if (line !== "[DONE]" && line.startsWith("{")) yield JSON.parse(line);
    }
  }
}
