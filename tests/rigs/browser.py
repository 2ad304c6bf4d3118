"""Headless Chromium, driven through the pipe of its own protocol: real clicks, keys and pages.

No package is needed, only the browser: `apt-get install chromium-headless-shell`, or any Chromium
or Chrome that is on the PATH.
"""

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PATH = next(filter(None, map(shutil.which, NAMES)), None)
WHY_NOT = "no Chromium on the PATH; apt-get install chromium-headless-shell brings one"
_START_S = 60.0
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio")
_CENTRE = """(selector => {
  const all = [...document.querySelectorAll(selector.css)];
  const node = all.find(n => n.textContent.includes(selector.text));
  if (!node) throw new Error(`nothing is ${selector.css} with ${selector.text}`);
  node.scrollIntoView({ block: "center" });
  const box = node.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
})"""


class Browser:
    """A Chromium of its own; a context manager."""

    def __init__(self):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        own = ["--remote-debugging-pipe", f"--user-data-dir={self._folder.name}"]
        # The protocol is at descriptors 3 and 4. A shell puts them there: Python would have to
        # fork, which JAX forbids.
        place = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", place, PATH, *_FLAGS, *own],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out, self._buffer = ours_in, ours_out, b""
        self._ids, self.events = itertools.count(1), []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.call("Browser.close")
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._folder.cleanup()

    def call(self, method, session=None, **params):
        """The browser's answer; events that come before it are kept."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": session} if session else {}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        deadline = time.monotonic() + _START_S
        while True:
            answer = self.read(deadline)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def read(self, deadline):
        """The next message."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(deadline - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            data = os.read(self._in, 1 << 20)
            if not data:
                raise OSError("the browser has ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def open(self, url, width=1280, height=900, dark=False):
        """A page in a tab of its own, loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Tab(self, session)
        for domain in ("Runtime", "Log", "Page"):
            page.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        page.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        page.call("Page.navigate", url=url)
        page.wait("document.readyState === 'complete' && location.href !== 'about:blank'")
        return page


class Tab:
    """A page, as a person uses it."""

    def __init__(self, browser, session):
        self._browser, self._session = browser, session

    def call(self, method, **params):
        return self._browser.call(method, self._session, **params)

    def eval(self, script):
        """The value of an expression in the page."""
        asked = {"expression": script, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", **asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script, seconds=30.0):
        """Returns when an expression is true."""
        deadline = time.monotonic() + seconds
        while not self.eval(script):
            assert time.monotonic() < deadline, f"never: {script}"
            time.sleep(0.05)

    def click(self, css, text=""):
        """Clicks on the middle of the first node that has this text, with the mouse."""
        x, y = self.eval(f"{_CENTRE}({json.dumps({'css': css, 'text': text})})")
        for kind in ("mousePressed", "mouseReleased"):
            where = {"x": x, "y": y, "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, **where)

    def type(self, css, text):
        """Types into a field."""
        self.click(css)
        self.call("Input.insertText", text=text)

    def choose(self, css, value):
        """Chooses an option of a select, as its list would."""
        self.eval(
            f"(s => {{ s.value = {json.dumps(value)}; "
            "s.dispatchEvent(new Event('change', { bubbles: true })); })"
            f"(document.querySelector({json.dumps(css)}))"
        )

    def text(self, css):
        """The visible text of all such nodes."""
        return self.eval(f"[...document.querySelectorAll({json.dumps(css)})].map(n => n.innerText)")

    @property
    def errors(self):
        """What the console says is wrong: exceptions, errors, refusals of the policy, dialogs."""
        self.eval("1")  # whatever came before it is here
        bad = []
        for event in self._browser.events:
            if event.get("sessionId") != self._session:
                continue
            method, params = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                bad.append(params["exceptionDetails"])
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                bad.append(params["entry"]["text"])
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
                bad.append(params["args"])
            elif method == "Page.javascriptDialogOpening":
                bad.append(f"dialog: {params['message']}")
        return bad

    def screenshot(self, path):
        """Writes a PNG of the window."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
