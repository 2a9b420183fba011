"""Answers wrap and unwrap requests, a JSON object a line, with psec."""

import json
import sys

import psec.tr31


def answer(request):
    kbpk = bytes.fromhex(request["kbpk"])
    try:
        if "block" in request:
            header, key = psec.tr31.unwrap(kbpk, request["block"])
            return {"key": key.hex().upper(), "header": str(header)[5:12]}
        key = bytes.fromhex(request["key"])
        return {"block": psec.tr31.wrap(kbpk, request["header"], key)}
    except (psec.tr31.HeaderError, psec.tr31.KeyBlockError) as error:
        return {"refused": str(error)}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
