"""`python fake_endpoint.py FOLDER`: chat completions on loopback, as FOLDER/script.json says.

replies: texts, by turns; status: HTTP status, of the first `bad` requests; sleep: seconds before an answer;
raw: a body as it is; redirect: a URL; echo: the body of an error repeats the Authorization.
"""

import json
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(sys.argv[1])
LOCK = threading.Lock()
STATE = {"count": 0, "now": 0, "most": 0}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        told = json.loads((FOLDER / "script.json").read_text())
        key = self.headers.get("Authorization")
        with LOCK:
            number = STATE["count"]
            STATE["count"] += 1
            STATE["now"] += 1
            STATE["most"] = max(STATE["most"], STATE["now"])
            with (FOLDER / "asked.jsonl").open("a") as file:
                file.write(
                    json.dumps({"path": self.path, "key": key, "body": body, "most": STATE["most"]}) + "\n"
                )
        time.sleep(told.get("sleep", 0))
        with LOCK:
            STATE["now"] -= 1
        status, content = 200, {}
        if "redirect" in told:
            status = 302
        elif number < told.get("bad", 1 << 30 if "status" in told else 0):
            status, content = told["status"], {"error": {"message": f"no: {key if told.get('echo') else ''}"}}
        else:
            replies = told.get("replies", ["ok"])
            asked = body["messages"][-1]["content"]
            text = replies[number % len(replies)].replace("{asked}", asked)
            content = {
                "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
            }
        data = told["raw"].encode() if "raw" in told else json.dumps(content).encode()
        self.send_response(status)
        if "redirect" in told:
            self.send_header("Location", told["redirect"])
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
(FOLDER / "part").write_text(str(server.server_address[1]))
(FOLDER / "part").rename(FOLDER / "port")
server.serve_forever()
