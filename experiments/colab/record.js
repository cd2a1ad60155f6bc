// Records from the microphone; resolves to 16-bit samples at `rate` Hz, base64, or to "" plus a
// reason after a space where there is no microphone or it is refused. Ends after `seconds` or a click.
async function record(seconds, rate, label) {
  const box = document.createElement("div");
  const stop = document.createElement("button");
  stop.textContent = "stop";
  stop.disabled = true; // until there is something to stop
  box.append(label + " ", stop);
  document.body.append(box);
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    box.remove();
    return " " + (error.message || error.name || "no microphone");
  }
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  recorder.ondataavailable = (event) => pieces.push(event.data);
  const ended = new Promise((resolve) => { recorder.onstop = resolve; });
  recorder.start();
  stop.disabled = false;
  stop.onclick = () => recorder.state === "recording" && recorder.stop();
  const timer = setTimeout(stop.onclick, 1000 * seconds);
  await ended;
  clearTimeout(timer);
  stream.getTracks().forEach((track) => track.stop());
  box.remove();
  // decoding resamples to the context's rate
  const context = new OfflineAudioContext(1, 1, rate);
  const sound = await context.decodeAudioData(await new Blob(pieces).arrayBuffer());
  const samples = Int16Array.from(sound.getChannelData(0), (x) => 32767 * Math.max(-1, Math.min(1, x)));
  const bytes = new Uint8Array(samples.buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}
