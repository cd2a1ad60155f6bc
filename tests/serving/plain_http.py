"""Requests by hand, for what no good client sends."""

import http.client
import json

WRONG = "invalid_value"  # the code of a value that is none of a field's


def ask(server, method, path, body=None, **headers):
    """(status, headers, body) of one request; `_` in the names of headers is `-`."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None and not isinstance(body, bytes | str):
        body, given = json.dumps(body), {"Content-Type": "application/json", **given}
    try:
        connection.putrequest(method, path, skip_host="Host" in given, skip_accept_encoding=True)
        data = body.encode() if isinstance(body, str) else body
        if data is not None:
            connection.putheader("Content-Length", str(len(data)))
        for name, value in given.items():
            for one in value if isinstance(value, list) else [value]:
                connection.putheader(name, one)
        connection.endheaders(data)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def error_of(answer):
    """(status, type, param, code) of an answer that is an error, whose shape is checked."""
    status, headers, body = answer
    assert headers["Content-Type"].startswith("application/json"), (status, body)
    (error,) = json.loads(body).values()
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return status, error["type"], error["param"], error["code"]


def multipart(fields, file=None, name="file", filename="question.wav"):
    """(body, content type) of a form."""
    boundary = "----a-boundary"
    lines = []
    for key, value in fields.items():
        lines.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        )
    if file is not None:
        head = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
        lines.append(f"--{boundary}\r\n{head}\r\n\r\n".encode() + file + b"\r\n")
    return b"".join(lines) + f"--{boundary}--\r\n".encode(), (
        f"multipart/form-data; boundary={boundary}"
    )
