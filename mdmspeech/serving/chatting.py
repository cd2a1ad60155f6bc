"""A chat completion in the thread of the model, unit by unit: recordings are heard, the conversation
is read, the answer is written and spoken.
"""

from collections.abc import Generator, Iterator

from mdmspeech.errors import UserError
from mdmspeech.inference.answering import Answering, LimitedAnswer, SilentStream, Stream
from mdmspeech.inference.assistant import Assistant
from mdmspeech.inference.conversation import Conversation, Part
from mdmspeech.inference.reply import Event
from mdmspeech.inference.speech_frontend import EncodedSpeech
from mdmspeech.inference.thinker_runner import TextDelta
from mdmspeech.serving.chat_request import Asked, ChatRequest, too_long
from mdmspeech.serving.request_error import RequestError

_NOTHING = EncodedSpeech(None, None, 0.0, 0.0)


class Chatting(Iterator[Event | None]):
    """Each `next` does a unit, and gives what came of it; the last one is the `EndEvent`.

    Attributes:
      rate: of the speech, Hz. read: tokens of the conversation as (texts, vectors, read before).
      written: tokens of the answer, thoughts included. full: whether it ended at a limit.

    Args:
      context: columns of the conversation's cache, see `Conversation`.

    RequestError: a recording without words, or a conversation that is too long. UserError: an option
    that the voice does not take.
    """

    def __init__(self, assistant: Assistant, wanted: ChatRequest, context: int) -> None:
        self._assistant, self._wanted = assistant, wanted
        self._voice = assistant.voice(wanted.manner.talker)
        self._conversation = Conversation(assistant.thinker, context)
        self.rate = self._voice.codec.sample_rate
        self._pieces = LimitedAnswer(iter(()), None)
        stream: Stream = SilentStream(self.rate)
        if wanted.spoken:
            stream = self._voice.stream(**wanted.manner.generation)
        self._question: list[Part] = []
        self._answering = Answering(self._voice, lambda: (_NOTHING, None), self._ask, stream)
        self._units = self._work()

    @property
    def written(self) -> int:
        """See `LimitedAnswer`."""
        return self._pieces.written

    @property
    def full(self) -> bool:
        """See `LimitedAnswer`."""
        return self._pieces.full

    @property
    def read(self) -> tuple[int, int, int]:
        """See `Conversation.read`."""
        return self._conversation.read

    @property
    def speaking(self) -> Stream | None:
        """See `Answering.speaking`."""
        return self._answering.speaking

    def __next__(self) -> Event | None:
        return next(self._units)

    def close(self) -> None:
        """No more units."""
        self._units.close()
        self._answering.close()

    def _work(self) -> Generator[Event | None]:
        for asked, answered in self._wanted.turns:
            parts = list[Part]()
            for part in asked:
                parts.append(self._heard(part))
                yield None
            self._conversation.insert(answered, *parts)
        for part in self._wanted.question:
            self._question.append(self._heard(part))
            yield None
        yield from self._answering

    def _heard(self, part: Asked) -> Part:
        if isinstance(part, str):
            return part
        heard = self._assistant.frontend.encode(part)
        if heard.vectors is not None:
            return heard.vectors
        if not heard.transcript:
            raise RequestError(
                "no speech is heard in a recording; speak closer to the microphone, or leave it out",
                "messages",
                code="no_speech",
            )
        return heard.transcript

    def _ask(self, _: EncodedSpeech) -> Iterator[TextDelta]:
        spoken = self._wanted.spoken
        try:
            pieces = self._conversation.ask(
                *self._question,
                states=self._voice.reads_states and spoken,
                instructions=self._wanted.instructions,
            )
        except UserError as error:
            raise too_long("messages") from error
        if self._conversation.dropped:  # nothing is forgotten behind the client's back
            raise too_long("messages")
        self._pieces = LimitedAnswer(pieces, self._wanted.max_tokens)
        return self._pieces
