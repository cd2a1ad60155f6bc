"""From records to batches, one file a layout.

Packed (several records a row, each its own segment): `talker_packed`, `thinker_packed`. Joined
(several records a row that hear each other): `talker_joined`. Bucketed (one record a row, rows of
like lengths together): `bucketed_states`. Cut (stretches of one length): `codec_crops`.
`conversations` puts the Thinker's ids together; `random_source` makes records out of nothing.
"""
