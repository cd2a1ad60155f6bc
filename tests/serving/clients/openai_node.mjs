// OpenAI's own client for Node, unchanged: once with headers, once as a browser does, with the key in
// a subprotocol. Prints one JSON object a way.
import OpenAI from "openai";
import { OpenAIRealtimeWebSocket } from "openai/realtime/websocket";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import WebSocket from "ws";

globalThis.WebSocket = WebSocket; // Node 20 has none
const client = new OpenAI({ apiKey: process.env.KEY, baseURL: process.env.BASE_URL });

function talk(name, realtime) {
  return new Promise((resolve, reject) => {
    const kinds = [];
    let bytes = 0;
    const timer = setTimeout(() => reject(new Error(`${name}: no answer`)), 60_000);
    realtime.on("error", reject);
    realtime.on("event", (event) => kinds.push(event.type));
    realtime.on("session.created", () => {
      realtime.send({
        type: "session.update",
        session: { type: "realtime", audio: { output: { steps: 2 } } },
      });
    });
    realtime.on("session.updated", () => {
      realtime.send({
        type: "conversation.item.create",
        item: {
          type: "message",
          role: "user",
          content: [{ type: "input_text", text: "what is it ?" }],
        },
      });
      realtime.send({ type: "response.create" });
    });
    realtime.on("response.output_audio.delta", (event) => {
      bytes += Buffer.from(event.delta, "base64").length;
    });
    realtime.on("response.done", (event) => {
      clearTimeout(timer);
      const { status, output } = event.response;
      console.log(
        JSON.stringify({ name, status, bytes, kinds, said: output[0].content[0].transcript,
          protocol: realtime.socket.protocol }),
      );
      realtime.close();
      resolve();
    });
  });
}

await talk("headers", new OpenAIRealtimeWS({ model: "small" }, client));
await talk("subprotocol", new OpenAIRealtimeWebSocket({ model: "small" }, client));
process.exit(0);
