// The Agents SDK for JavaScript, unchanged, with its default settings (semantic_vad, transcription):
// a typed question, then a spoken one read from standard input (16-bit samples at 24 kHz), which is
// interrupted. Prints one JSON object.
import { RealtimeAgent, RealtimeSession } from "@openai/agents/realtime";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const sound = Buffer.concat(chunks);

const agent = new RealtimeAgent({ name: "small", instructions: "be a red apple" });
const session = new RealtimeSession(agent, { transport: "websocket", model: "small" });
const seen = { kinds: [], errors: [], audio: 0, interrupted: 0, history: [] };
let done = () => {};
const next = () =>
  new Promise((resolve, reject) => {
    done = resolve;
    setTimeout(() => reject(new Error("no answer: " + JSON.stringify(seen))), 60_000);
  });

session.on("error", (error) => seen.errors.push(JSON.stringify(error)));
session.on("audio", (event) => (seen.audio += event.data.byteLength));
session.on("audio_interrupted", () => (seen.interrupted += 1));
session.on("history_updated", (history) => (seen.history = history));
session.transport.on("*", (event) => {
  if (seen.kinds.at(-1) !== event.type) seen.kinds.push(event.type);
  if (event.type === "response.done") done(event);
});

await session.connect({ apiKey: process.env.KEY, url: process.env.URL });
let answer = next();
session.sendMessage("what is it ?");
await answer;
answer = next();
for (let at = 0; at < sound.length; at += 4800) {
  const piece = sound.subarray(at, at + 4800);
  session.sendAudio(piece.buffer.slice(piece.byteOffset, piece.byteOffset + piece.length));
}
await answer;
session.interrupt();
await new Promise((resolve) => setTimeout(resolve, 500));
console.log(
  JSON.stringify({
    ...seen,
    history: seen.history.map((item) => [item.role, item.status, item.content]),
  }),
);
session.close();
process.exit(0);
