// The microphone and the loudspeaker, by two worklets of one AudioContext at the device's own rate.

import { Scheduled } from "./scheduled.js";

export const RATE = 24000;
export const SHORTEST = 0.1 * RATE; // samples of a question; servers refuse less

export class Sound {
  // report: called with what the loudspeaker tells.
  constructor(report) {
    this.report = report;
    this.context = null;
    this.player = null;
    this.microphone = null;
  }

  // Must be called in a click: browsers play nothing before one.
  async open() {
    if (!this.context) {
      this.context = new AudioContext({ latencyHint: "interactive" });
      this.opening = this.openPlayer();
    }
    await this.opening;
    if (this.context.state === "suspended") await this.context.resume();
  }

  async openPlayer() {
    const { context } = this;
    if (!context.audioWorklet) {
      this.player = new Scheduled(context, this.report);
      return;
    }
    await context.audioWorklet.addModule("playback_worklet.js");
    const settings = { numberOfInputs: 0, outputChannelCount: [1] };
    const node = new AudioWorkletNode(context, "playback", settings);
    node.port.onmessage = ({ data }) => this.report(data);
    node.connect(context.destination);
    this.player = node.port;
  }

  put(id, samples) {
    this.player?.postMessage({ do: "put", id, samples });
  }

  end(id) {
    this.player?.postMessage({ do: "end", id });
  }

  stop(id) {
    this.player?.postMessage({ do: "stop", id });
  }

  // heard: called with {level, samples: ArrayBuffer of Int16 at 24 kHz}, every 40 ms.
  async listen(heard) {
    await this.open();
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, autoGainControl: true, noiseSuppression: true },
    });
    await this.context.audioWorklet.addModule("capture_worklet.js");
    const source = this.context.createMediaStreamSource(stream);
    const capture = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
    capture.port.onmessage = ({ data }) => heard(data);
    source.connect(capture);
    this.microphone = { stream, source, capture };
  }

  deaf() {
    if (!this.microphone) return;
    this.microphone.source.disconnect();
    this.microphone.capture.port.onmessage = null;
    for (const track of this.microphone.stream.getTracks()) track.stop();
    this.microphone = null;
  }
}

export function toBase64(buffer) {
  const bytes = new Uint8Array(buffer);
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return btoa(text);
}

// base64 of 16-bit samples -> floats
export function fromBase64(text) {
  const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  return Float32Array.from(new Int16Array(bytes.buffer), (one) => one / 32768);
}

// A whole WAV file of float samples.
export function wav(pieces, rate = RATE) {
  const count = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * count));
  const word = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + 2 * count, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, 2 * count, true);
  let at = 44;
  for (const piece of pieces) {
    for (const sample of piece) {
      view.setInt16(at, Math.max(-32768, Math.min(32767, Math.round(sample * 32768))), true);
      at += 2;
    }
  }
  return new Blob([view.buffer], { type: "audio/wav" });
}
