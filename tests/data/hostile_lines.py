"""Lines of a file of JSON, good and bad ones."""

import json


def lines_of(*rows):
    return [
        row
        if isinstance(row, bytes)
        else (row if isinstance(row, str) else json.dumps(row)).encode()
        for row in rows
    ]
