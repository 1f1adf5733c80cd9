"""A page in headless Chromium, driven by its developer tools' protocol: real keys, and what is on the page."""

import base64
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import websocket

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
KEYS = {"Tab": 9, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
PATIENCE = 120  # seconds: a machine may be busy


class Browser:
    """Chromium with one page; `folder` becomes its profile. `complaints` are the errors of its console."""

    def __init__(self, folder: Path):
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--hide-scrollbars"]
        command = [CHROMIUM, *flags, "--remote-allow-origins=*", f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.numbers, told, end = itertools.count(1), folder / "DevToolsActivePort", time.monotonic() + PATIENCE
        while not (told.is_file() and told.read_text().count("\n")):
            assert self.process.poll() is None and time.monotonic() < end, "Chromium did not start"
            time.sleep(0.05)
        pages = json.load(urlopen(f"http://127.0.0.1:{told.read_text().split()[0]}/json"))
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        self.socket = websocket.create_connection(address, timeout=PATIENCE, suppress_origin=True)
        self.complaints: list[str] = []
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        for domain in ("Page", "Runtime", "Log"):  # they tell of dialogs, exceptions and errors
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = self.send(method, **parameters)
        while (answer := json.loads(self.socket.recv())).get("id") != number:
            told, event = answer.get("params", {}), answer.get("method")
            if event == "Page.javascriptDialogOpening":  # whether to leave a page with what was not saved
                self.send("Page.handleJavaScriptDialog", accept=True)
            kind = told.get("type") or told.get("entry", {}).get("level")
            if event == "Runtime.exceptionThrown" or kind == "error":
                self.complaints.append(json.dumps(told))
        assert "error" not in answer, answer
        return answer["result"]

    def send(self, method: str, **parameters: Any) -> int:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        return number

    def open(self, page: Path | str, width: int = 1440, height: int = 900) -> None:
        """A file, or what is at an address."""
        self.resize(width, height)
        self.ask("window.left = true")
        self.call("Page.navigate", url=page.as_uri() if isinstance(page, Path) else page)
        self.wait("!window.left && document.readyState === 'complete'")

    def resize(self, width: int, height: int = 900) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def name(self) -> str:
        """What a screen reader calls the element that has the focus."""
        focused = self.call("Runtime.evaluate", expression="document.activeElement")["result"]["objectId"]
        (node,) = self.call("Accessibility.getPartialAXTree", objectId=focused, fetchRelatives=False)["nodes"]
        return node.get("name", {}).get("value", "")

    def wait(self, expression: str, seconds: float = PATIENCE) -> None:
        """Until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self.ask(expression):
            assert time.monotonic() < end, f"never: {expression}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        named = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", **named, **({"text": key} if key == " " else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def write(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def photograph(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
