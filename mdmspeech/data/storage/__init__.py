"""The corpus on disk. `record_store` holds recordings, `token_store` the speech tokens of a codec,
`state_store` and `phone_states` states of the speech encoder.

`sources` gives recordings by part and split; `splits` decides which of them steer a run, and so are
never trained on. `json_lines` reads what users wrote.
"""
