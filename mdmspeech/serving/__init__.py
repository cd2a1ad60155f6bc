"""The server: HTTP and WebSocket in front of one model. `engine` calls the model, in one thread of its
own; everything else runs in the event loop and waits for it. Needs the packages of the extra serve.
"""
