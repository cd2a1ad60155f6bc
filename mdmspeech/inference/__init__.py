"""From trained parts to an assistant that listens and speaks, all of it streaming.

`assistant` is what a user holds and `factory` makes it. It hears with `speech_frontend`, thinks
with `thinker_runner` and speaks with a `synthesizer`: `paced_synthesizer` and `prefix_synthesizer`
read text, `fixed_anchor_synthesizer` the Thinker's states; `engine` is the Talker compiled.
`generation_config` holds the options of a request.

A `session` listens, thinks and speaks at the same time: `listener` finds turns, `session_response`
answers one question by units of `answering`, `conversation` keeps what the Thinker has read, and
`session_loop` does the work of all sessions in one thread (docs/sessions.md).
"""
