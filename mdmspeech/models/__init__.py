"""The networks, as Flax modules that know no training: `speech_encoder` -> an adaptor
(`stack_adaptor`, `ctc_adaptor`, `seq2seq_adaptor`) -> `thinker` -> `talker` with its `anchors`;
`phone_classifier` for alignment, `lora` for all of them, `vocalnet` for published Talkers of that
layout.
"""
