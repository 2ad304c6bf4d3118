"""An OpenAI-compatible endpoint on this machine that replies by a function of the prompt."""

import http.server
import json
import threading


class Endpoint:
    """Replies `say(prompt)` to each prompt, or with the status that it returns; keeps the prompts.

    `say` may return a text, (text, finish reason), or a status such as 500.
    """

    def __init__(self, say):
        self.say, self.prompts = say, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][0]["content"]
                outer.prompts.append(prompt)
                said = outer.say(prompt)
                text, finish = said if isinstance(said, tuple) else (said, "stop")
                choice = {"message": {"content": text}, "finish_reason": finish}
                content = json.dumps({"choices": [choice]}).encode()
                self.send_response(said if isinstance(said, int) else 200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc):
        self._server.shutdown()
        self._server.server_close()
