"""Talking to a model from a terminal: microphone, loudspeaker, and a session here or on a server."""
