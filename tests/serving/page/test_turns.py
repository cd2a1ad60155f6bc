"""Who answers what, who is stopped and what is remembered: the page's scripts in node, see conftest.py.

A defect that was found by reading stands behind each: questions that were never answered, answers
that were stopped in place of others, conversations that failed for ever, transcripts a row too low.
"""

# ---- Over the socket ----------------------------------------------------------------------------


def test_a_typed_question_stops_the_answer_that_is_being_made(in_node):
    """The server refuses a second answer beside one: it is cancelled first, in the same moment."""
    in_node("""
await open("socket");
await ask("one");
answering("a");
saying("a", "A long story.");
player.says({ began: "a", now: "a" });
socket.sent.length = 0;
await ask("two");
assert.deepEqual(
  socket.sent.map((event) => event.type),
  ["response.cancel", "conversation.item.create", "response.create"],
);
assert.equal(socket.sent[0].response_id, "a");
assert.deepEqual(player.told.at(-1), { do: "stop", id: "a" });

// what was on its way is not played behind the stop
saying("a", " And so on.");
assert.equal(player.told.at(-1).do, "stop");
done("a", "client_cancelled");
answering("b");
saying("b", "Yes.");
assert.equal(player.told.at(-1).id, "b");

// later the loudspeaker tells how much was heard
socket.sent.length = 0;
player.says({ stopped: "a", seconds: 0.25 });
const cut = { item_id: "item-of-a", content_index: 0, audio_end_ms: 250 };
assert.deepEqual(socket.sent, [{ type: "conversation.item.truncate", ...cut }]);
assert.equal(find("stop").disabled, false);
assert.deepEqual(rows(), [["one", "A long story. And so on."], ["two", "Yes."]]);
""")


def test_an_answer_that_was_made_is_no_reason_to_cancel_the_next_one(in_node):
    """It is still being played when the next question is asked: the next answer runs when the
    loudspeaker tells that it has stopped.
    """
    in_node("""
await open("socket");
await ask("one");
answering("a");
saying("a", "A long story.");
player.says({ began: "a", now: "a" });
done("a");
socket.sent.length = 0;
await ask("two");
answering("b");
player.says({ stopped: "a", seconds: 0.05 });
assert.deepEqual(
  socket.sent.map((event) => event.type),
  ["conversation.item.create", "response.create", "conversation.item.truncate"],
);
assert.equal(socket.sent[2].item_id, "item-of-a");

// the button stops the one that runs, once
socket.sent.length = 0;
find("stop").fire("click");
find("stop").fire("click");
assert.deepEqual(socket.sent, [{ type: "response.cancel", response_id: "b" }]);

// that it was over by then is nobody's concern
refused(null, "response_cancel_not_active");
assert.equal(notice(), "");
""")


def test_a_question_that_is_refused_beside_another_is_asked_again(in_node):
    """Two in a row: the page does not know the first answer yet, and cannot cancel it."""
    in_node("""
await open("socket");
await ask("one");
const first = socket.sent.at(-1);
await ask("two");
const second = socket.sent.at(-1);
const again = () => socket.sent.filter((event) => event.type === "response.create").slice(2);
refused(second, "conversation_already_has_active_response");
answering("a", first);
assert.deepEqual(socket.sent.at(-1), { type: "response.cancel", response_id: "a" });
assert.deepEqual(again(), []);
done("a", "client_cancelled");
assert.deepEqual(again(), [second]);
answering("b");
saying("b", "Two.");
done("b");
assert.deepEqual(rows(), [["one", ""], ["two", "Two."]]);
assert.deepEqual([again().length, notice()], [1, ""]);
""")


def test_speech_stops_an_answer_without_cancelling_the_next_one(in_node):
    in_node("""
await open("socket");
await find("microphone").fire("click");
await ask("one");
answering("a");
saying("a", "A long story.");
player.says({ began: "a", now: "a" });
socket.sent.length = 0;
socket.says("input_audio_buffer.speech_started", { item_id: "i", interrupted_item_id: "item-of-a" });
done("a", "turn_detected");
socket.says("input_audio_buffer.committed", { item_id: "i" });
answering("b", null);
player.says({ stopped: "a", seconds: 0.05 });
assert.deepEqual(socket.sent.map((event) => event.type), ["conversation.item.truncate"]);
saying("b", "Yes.");
transcribed("i", "two");
assert.deepEqual(rows(), [["one", "A long story."], ["two", "Yes."]]);
""")


def test_a_tap_is_no_question(in_node):
    """The server refuses what is shorter than 100 ms, and no transcript comes of it."""
    in_node("""
await open("socket");
await pushToTalk();
holdFor(40);
const sent = () => socket.sent.map((event) => event.type.split(".").at(-1));
assert.deepEqual(sent(), ["clear", "append"]);
assert.deepEqual(rows(), []);

// one that the server refuses all the same, behind one that it has not taken yet
holdFor(200);
const commits = () => socket.sent.filter((event) => event.type.endsWith(".commit"));
holdFor(200);
refused(commits()[1], "input_audio_buffer_commit_empty");
assert.equal(rows().length, 1);
holdFor(200);
socket.says("input_audio_buffer.committed", { item_id: "i" });
socket.says("input_audio_buffer.committed", { item_id: "j" });
transcribed("j", "two");
transcribed("i", "one");
assert.deepEqual(rows(), [["one", ""], ["two", ""]]);
""")


def test_a_transcript_stands_on_the_row_of_its_question(in_node):
    """Also if one before it never comes: speech that was thrown away, an ear that makes no text."""
    in_node("""
await open("socket");
await find("microphone").fire("click");
const speech = (what, item_id) => socket.says(`input_audio_buffer.${what}`, { item_id });
speech("speech_started", "i");
socket.says("input_audio_buffer.cleared");
assert.deepEqual(rows(), []);
speech("speech_started", "j");
speech("committed", "j");
speech("speech_started", "k");
speech("committed", "k");
socket.says("conversation.item.input_audio_transcription.failed", { item_id: "j" });
transcribed("k", "two");
answering("a", null);
saying("a", "Yes.");
assert.deepEqual(rows(), [["(not written down)", ""], ["two", "Yes."]]);
transcribed("of nobody", "three");
assert.equal(rows().length, 2);
""")


# ---- Over HTTP ----------------------------------------------------------------------------------


def test_over_http_the_answer_that_is_meant_is_stopped(in_node):
    """At once, and not the next one when the loudspeaker tells that it has stopped."""
    in_node("""
await open("http");
await ask("one");
requests[0].says({ transcript: "A long story.", data: "AAAA".repeat(800) });
await soon();
const { id } = player.told.at(-1);
await ask("two");
assert.deepEqual([requests.length, requests[0].aborted], [2, true]);
assert.deepEqual(player.told.at(-1), { do: "stop", id });
await soon();
player.says({ stopped: id, seconds: 0.1 });
await soon();
assert.equal(requests[1].aborted, false);
requests[1].says({ transcript: "Yes." });
requests[1].ends();
await soon();
assert.deepEqual(rows(), [["one", "A long story."], ["two", "Yes."]]);

// what was heard of the first is remembered
assert.deepEqual(requests[1].messages, [
  { role: "user", content: "one" },
  { role: "assistant", content: "A long story." },
  { role: "user", content: "two" },
]);
assert.match(notice(), /over HTTP/);
""")


def test_over_http_earlier_turns_are_bounded_and_written(in_node):
    """Of thirty spoken questions no recording is sent twice, nor an id that the server forgets."""
    in_node("""
await open("http");
await pushToTalk();
for (let number = 1; number <= 30; number++) {
  transcripts.push(`question ${number}`);
  holdFor(200);
  await soon();
  requests.at(-1).says({ id: `audio-${number}`, transcript: `Answer ${number}.` });
  requests.at(-1).ends();
  await soon();
}
assert.deepEqual(rows()[29], ["question 30", "Answer 30."]);
const { messages } = requests.at(-1);
assert.equal(messages.length, 17);
assert.deepEqual(messages[0], { role: "user", content: "question 22" });
assert.deepEqual(messages[15], { role: "assistant", content: "Answer 29." });
assert.equal(messages[16].content[0].type, "input_audio");
""")


def test_over_http_few_recordings_are_sent_where_no_transcripts_are(in_node):
    in_node("""
await open("http");
await pushToTalk();
for (let number = 1; number <= 6; number++) {
  holdFor(200);
  await soon();
  requests.at(-1).says({ transcript: `Answer ${number}.` });
  requests.at(-1).ends();
  await soon();
}
const recordings = requests.at(-1).messages.filter(({ content }) => typeof content !== "string");
assert.equal(recordings.length, 4);
assert.deepEqual(rows()[0], ["(not written down)", "Answer 1."]);
""")


def test_over_http_a_tap_is_no_question(in_node):
    in_node("""
await open("http");
await pushToTalk();
holdFor(40);
await soon();
assert.deepEqual([rows(), requests.length, notice().includes("over HTTP")], [[], 0, true]);
""")


def test_over_http_what_has_no_room_is_forgotten(in_node):
    """The older half, until it fits, and for good; what fails is not remembered."""
    in_node("""
await open("http");
const answer = async (question) => {
  await ask(question);
  await soon();
  requests.at(-1).says({ transcript: `${question}!` });
  requests.at(-1).ends();
  await soon();
};
for (const question of ["a", "b", "c", "d", "e"]) await answer(question);
const sent = () => requests.at(-1).messages.map(({ content }) => content).join(" ");
await ask("f");
const refuse = async (code) => {
  requests.at(-1).refuse(code);
  await soon();
};
assert.equal(sent(), "a a! b b! c c! d d! e e! f");
await refuse("context_length_exceeded");
assert.equal(sent(), "d d! e e! f");
await refuse("context_length_exceeded");
assert.equal(sent(), "e e! f");
requests.at(-1).says({ transcript: "f!" });
requests.at(-1).ends();
await soon();
await ask("g");
assert.equal(sent(), "e e! f f! g");

// a question that is too long alone ends, and costs nothing that was said
for (let times = 0; times < 3; times++) await refuse("context_length_exceeded");
assert.equal(notice(), "context_length_exceeded");
const before = requests.length;
await ask("h");
assert.deepEqual([requests.length, sent()], [before + 1, "e e! f f! h"]);
await refuse("no_speech");
assert.equal(requests.length, before + 1);
""")
