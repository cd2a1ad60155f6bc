"""The Realtime protocol at `/v1/realtime`: `protocol` turns events of clients into calls of a `Session`
and what the session tells into events of the server, `websocket` carries both.
"""
