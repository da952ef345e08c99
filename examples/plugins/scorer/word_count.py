"""A scorer as a program: `python word_count.py PREDICTIONS RESULT CALL`, three paths.

PREDICTIONS has one JSON object a line; RESULT is to be written; CALL has {"parameters": {...}, "base": ...}.
"""

import json
import sys

predictions, result, call = sys.argv[1:]
with open(call) as file:
    most = json.load(file)["parameters"].get("most", 20)
with open(predictions) as file:
    counts = [len(json.loads(line)["answer"].split()) for line in file]
with open(result, "w") as file:
    json.dump({"scores": {"words": {"rows": counts, "higherIsBetter": False},
                          "short": {"rows": [int(count <= most) for count in counts]}}}, file)  # fmt: skip
