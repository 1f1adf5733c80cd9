"""The LLM teacher against a real server on loopback, and through a proxy that does to it what networks do."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from kardlib import REPOSITORY
from kardlib.artifacts.store import Store
from kardlib.data.files import Question
from kardlib.data.prompts import teacher_text
from kardlib.kard.experiment import open_settings
from kardlib.kard.llm import Completion, TeacherError, estimate, hide_key, read_completion, server_teacher
from kardlib.kard.prepare import write_rationales
from kardlib.models.nano import build_tokenizer
from kardlib.presets import preset
from kardlib.settings import SettingsError, TeacherSettings
from tests.ports import choose_port

KEY = "sk-a-key-that-must-not-be-seen"
QUESTIONS = [Question(f"q{i}", f"Is {i} an even number?", ("yes", "no"), i % 2) for i in range(6)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """`transformers serve` with a small random model: its port, and what it calls the model."""
    if missing := [name for name in ("fastapi", "uvicorn") if not importlib.util.find_spec(name)]:
        pytest.skip(f"transformers serve needs {' and '.join(missing)}: install kardlib[dev]")
    folder, tokenizer = tmp_path_factory.mktemp("model"), build_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                         num_attention_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=1)  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config.do_sample = True  # else this server is greedy at any temperature
    model.save_pretrained(folder)
    port = choose_port()
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
            stdout=log, stderr=log, env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
    try:
        for _ in range(1200):
            if process.poll() is not None:
                pytest.fail((folder / "log").read_text())
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
            except OSError:
                time.sleep(0.1)
        yield port, str(folder)
    finally:
        process.terminate()
        process.wait()


class Proxy(ThreadingHTTPServer):
    """Passes requests on to the server, after doing what `faults` says to the first of them; keeps what it saw."""

    daemon_threads = True

    def __init__(self, upstream: int):
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream, self.faults, self.delay = upstream, [], 0.0
        self.requests: list[tuple[float, str]] = []  # time and prompt
        self.answered = self.busy = self.busiest = 0
        self.lock, self.closing = threading.Lock(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        pass  # a client that was killed


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_POST(self):
        proxy, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        with proxy.lock:
            proxy.requests.append((time.monotonic(), json.loads(body)["messages"][0]["content"]))
            proxy.busy += 1
            proxy.busiest = max(proxy.busiest, proxy.busy)
            fault = proxy.faults.pop(0) if proxy.faults else None
        time.sleep(proxy.delay)
        try:
            if fault is None:
                self.pass_on(body)
            elif fault == "hang":
                proxy.closing.wait(30)
                self.close_connection = True
            elif fault == "cut":
                self.reply(200, b'{"choices": [{"mess', length=500)
                self.close_connection = True
            elif fault == "drop":
                self.close_connection = True
            else:
                self.reply(*fault)
        finally:
            with proxy.lock:
                proxy.busy -= 1

    def pass_on(self, body):
        upstream = HTTPConnection("127.0.0.1", self.server.upstream)
        upstream.request("POST", self.path, body, {"Content-Type": "application/json"})
        response = upstream.getresponse()
        self.reply(response.status, response.read())
        with self.server.lock:
            self.server.answered += 1

    def reply(self, status, body, headers=(), length=None):
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **dict(headers)}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def proxy(server, monkeypatch) -> Iterator[Proxy]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    proxy = Proxy(server[0])
    threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield proxy
    proxy.closing.set()
    proxy.shutdown()
    proxy.server_close()


@pytest.fixture
def settings(proxy, server) -> TeacherSettings:
    return TeacherSettings(base_url=proxy.url, model=server[1], max_tokens=8, concurrency=3, timeout=20)


def read_lines(root: Path) -> list[dict]:
    (file,) = root.glob("teacher-*/responses.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_real_server_writes_and_nothing_is_asked_twice(proxy, settings, tmp_path, capsys, monkeypatch):
    written = server_teacher(settings, tmp_path)(QUESTIONS, 2)
    assert [r.id for r in written] == [f"q{i}/{j}" for i in range(6) for j in range(2)]
    assert len({r.text for r in written}) > 6  # samples differ
    assert len(proxy.requests) == 12
    assert capsys.readouterr().out.startswith(f"teacher {settings.model} at {proxy.url}: 12 requests, about ")
    for line in read_lines(tmp_path):
        assert line["date"].startswith("20") and line["server"] == proxy.url
        assert line["request"].items() >= {"model": settings.model, "temperature": 0.7, "max_tokens": 8}.items()
        assert line["response"]["usage"]["completion_tokens"] <= 8
    assert {line["request"]["messages"][0]["content"] for line in read_lines(tmp_path)} == set(
        map(teacher_text, QUESTIONS)
    )

    more = server_teacher(settings, tmp_path)(QUESTIONS, 3)
    assert [r for r in more if r.number < 2] == written and len(proxy.requests) == 18
    monkeypatch.delenv("OPENAI_API_KEY")  # what is finished needs no key
    assert server_teacher(settings, tmp_path)(QUESTIONS, 3) == more and len(proxy.requests) == 18


def test_the_prompt_holds_question_options_and_gold_answer():
    text = teacher_text(Question("q", "Which planet is red?", ("Venus", "Mars"), 1))
    assert "Question: Which planet is red?\nA. Venus\nB. Mars\nRight option: (B) Mars" in text


def test_requests_under_way_are_bounded(proxy, settings, tmp_path):
    proxy.delay = 0.25
    server_teacher(settings, tmp_path)(QUESTIONS, 3)
    assert proxy.busiest == settings.concurrency == 3


HTML = b"<html><body>Service is being mended</body></html>"
PASSING = {
    "429": (429, b'{"error": {"message": "too many"}}', {"Retry-After": "0.1"}),
    "500": (500, b"oops"),
    "503 in HTML": (503, HTML, {"Content-Type": "text/html"}),
    "hang": "hang",
    "cut": "cut",
    "dropped": "drop",
    "HTML": (200, HTML, {"Content-Type": "text/html"}),
    "no JSON": (200, b'{"choices": ['),
    "no choices": (200, b'{"id": "x", "choices": []}'),
    "an error as a success": (200, b'{"error": {"message": "overloaded"}}'),
    "another type": (200, b'{"choices": [{"message": {"content": 7}}]}'),
    "not UTF-8": (200, b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_retried(fault, proxy, settings, tmp_path):
    usual = answer() if fault == "hang" else None  # the proxy's own answers are never late
    proxy.faults = [usual, PASSING[fault], usual, usual, usual]
    quick = settings.model_copy(update={"timeout": 3 if fault == "hang" else 20})  # more than a busy machine takes
    written = server_teacher(quick, tmp_path)(QUESTIONS[:2], 2)
    assert len(written) == 4 == len(read_lines(tmp_path))
    assert len(proxy.requests) == 5


def test_retry_after_is_honoured(proxy, settings, tmp_path):
    proxy.faults = [(429, b"{}", {"Retry-After": "1.5"})]  # the client's own first wait is at most half a second
    server_teacher(settings, tmp_path)(QUESTIONS[:1], 1)
    (first, _), (second, _) = proxy.requests
    assert second - first >= 1.5


REFUSED = {
    "key refused": ((401, b'{"error": {"message": "Incorrect key %s"}}' % KEY.encode()), 1,
                    r"refuses the key in OPENAI_API_KEY \(401: .*\): set one that is valid there"),
    "key not allowed": ((403, b"{}"), 1, r"refuses the key in OPENAI_API_KEY \(403: .*\): set one that is valid"),
    "no such model": ((404, b'{"error": {"message": "The model does not exist"}}'), 1,
                      r"knows no model '.*' or is no such address \(404: .*\): correct teacher.model or teacher.base_"),
    "wrong request": ((400, b'{"error": {"message": "use max_completion_tokens"}}'), 1,
                      r"refuses the request \(400: .*max_completion_tokens.*\): correct the settings of teacher"),
    "wait an hour": ((429, b"{}", {"Retry-After": "3600"}), 1, r"no more requests \(429: .*\): run again in 3600 s"),
    "always busy": ((429, b"{}"), 2, r"takes no more requests \(429: .*\): run again later or lower"),
    "always failing": ((500, HTML), 2, r"fails \(500: .*\): look at the server or run again later"),
    "always silent": ("hang", 2, r"did not answer within teacher.timeout \(0.5 s\)"),
    "always cut": ("cut", 2, r"cannot be reached \(.+\): start it or correct teacher.base_url"),
    "another website": ((200, HTML), 3, r"answers with what is no chat completion \(<html>.*\): correct teacher.base_"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_stays_wrong_is_one_sentence_and_what_is_finished_stays(case, proxy, settings, tmp_path):
    fault, requests, sentence = REFUSED[case]
    server_teacher(settings, tmp_path)(QUESTIONS[:1], 2)
    asked, proxy.faults = len(proxy.requests), [fault] * 9
    hasty = settings.model_copy(update={"retries": 1, "timeout": 0.5 if fault == "hang" else 20})
    with pytest.raises(TeacherError, match=sentence) as error:
        server_teacher(hasty, tmp_path)(QUESTIONS, 2)
    assert len(proxy.requests) - asked == requests  # the first request goes alone, 4xx are not retried
    assert "; 2 of 12 rationales are kept, the same command goes on from there" in str(error.value)
    assert "\n" not in str(error.value) and KEY not in str(error.value)
    proxy.faults = []
    assert len(server_teacher(settings, tmp_path)(QUESTIONS, 2)) == 12
    assert len(proxy.requests) - asked == requests + 10


def test_a_model_that_the_real_server_does_not_have(settings, tmp_path):
    with pytest.raises(TeacherError, match=r"refuses the request \(400: .*pinned.*other"):
        server_teacher(settings.model_copy(update={"model": "other"}), tmp_path)(QUESTIONS, 1)


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = TeacherSettings(base_url=f"http://127.0.0.1:{closed.getsockname()[1]}/v1", model="m", retries=0)
        with pytest.raises(TeacherError, match=r"cannot be reached \(.*refused.*\): start it or correct"):
            server_teacher(nobody, tmp_path)(QUESTIONS, 1)


@pytest.mark.parametrize(("key", "sentence"), [
    (None, "the key of .* is missing: set the environment variable SOME_KEY"),
    (" ", "is missing: set the environment variable SOME_KEY"),
    ("secret\nsecret", "the environment variable SOME_KEY holds what cannot be a key: set it again"),
    ("sécret", "holds what cannot be a key"),
])  # fmt: skip
def test_a_key_that_is_none_sends_nothing(key, sentence, proxy, settings, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SOME_KEY", key) if key else monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(TeacherError, match=sentence) as error:
        server_teacher(settings.model_copy(update={"key_variable": "SOME_KEY"}), tmp_path)(QUESTIONS, 1)
    assert "6 requests" in capsys.readouterr().out  # the estimate needs no key
    assert not proxy.requests and "secret" not in str(error.value)


def test_the_key_is_written_nowhere_even_if_the_server_repeats_it(proxy, settings, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("OPENAI_LOG", "debug")
    body = {"choices": [{"message": {"content": f"Your key is {KEY}."}}]}
    proxy.faults = [(200, json.dumps(body).encode()), (400, KEY.encode() * 9)]
    with pytest.raises(TeacherError, match=r"400.*\*\*\*") as error:
        server_teacher(settings, tmp_path)(QUESTIONS[:1], 2)
    assert read_lines(tmp_path)[0]["response"]["choices"][0]["message"]["content"] == "Your key is ***."
    shown = "".join([str(error.value), *capfd.readouterr()])
    shown += "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "sk-a" not in shown


def test_the_spending_limit_is_announced_kept_to_and_can_be_raised(proxy, settings, tmp_path, capsys):
    priced = settings.model_copy(update={"price_in": 1.0, "price_out": 1e6, "spending_limit": 30.0})  # 8 $ a rationale
    with pytest.raises(TeacherError, match=r"spending_limit \(\$30.00\) is used up.*; (\d+) of 12 rationales are kept"):
        server_teacher(priced, tmp_path)(QUESTIONS, 2)
    said = capsys.readouterr().out
    assert said.index("may be more than what is left of teacher.spending_limit ($30.00") < said.index(
        "of 12 rationales"
    )
    lines = read_lines(tmp_path)
    spent = sum(line["response"]["usage"]["completion_tokens"] for line in lines)
    assert 22 < spent <= 30 and len(lines) == len(proxy.requests)

    with pytest.raises(TeacherError, match="used up"):  # the limit holds over runs
        server_teacher(priced, tmp_path)(QUESTIONS, 2)
    assert len(proxy.requests) == len(lines)
    server_teacher(priced.model_copy(update={"spending_limit": 200.0}), tmp_path)(QUESTIONS, 2)
    assert len(proxy.requests) == 12 and read_lines(tmp_path)[: len(lines)] == lines


def answer(content: str | None = "It is even.", **more) -> tuple[int, bytes]:
    return 200, json.dumps({"choices": [{"message": {"content": content}}]} | more).encode()


def spent_by(proxy, faults, settings, root) -> int:
    """How many requests of a dollar are sent before the limit ends the run, if the server does this to each."""
    proxy.requests.clear()
    proxy.faults = list(faults)
    priced = settings.model_copy(update={"price_out": 1e6 / settings.max_tokens, "spending_limit": 6.0})
    with pytest.raises(TeacherError, match=r"is used up|no chat completion|did not answer"):
        server_teacher(priced, root)(QUESTIONS, 8)
    return len(proxy.requests)


def test_a_server_that_counts_more_than_it_may_write_does_not_break_the_limit(proxy, settings, tmp_path):
    used = {"prompt_tokens": 1, "completion_tokens": 2 * settings.max_tokens}  # two dollars each, not one
    assert spent_by(proxy, [answer(usage=used)] * 48, settings, tmp_path) == 3


def test_what_is_paid_without_an_answer_counts_against_the_limit_over_runs(proxy, settings, tmp_path):
    used = {"prompt_tokens": 1, "completion_tokens": settings.max_tokens}
    unusable = 200, json.dumps({"choices": [], "usage": used}).encode()
    assert spent_by(proxy, [answer(), *[unusable] * 48], settings, tmp_path / "unusable") <= 7
    assert spent_by(proxy, [unusable] * 48, settings, tmp_path / "unusable") <= 2
    hasty = settings.model_copy(update={"timeout": 0.3, "retries": 2, "concurrency": 1})
    assert spent_by(proxy, ["hang"] * 48, hasty, tmp_path / "late") == 3
    assert spent_by(proxy, ["hang"] * 48, hasty, tmp_path / "late") == 3
    assert spent_by(proxy, ["hang"] * 48, hasty, tmp_path / "late") == 0
    (file,) = tmp_path.glob("late/teacher-*/lost.jsonl")
    assert [json.loads(line)["dollars"] for line in file.read_text().splitlines()] == [pytest.approx(1, abs=0.01)] * 6


def test_an_answer_without_end_is_read_no_further_than_needed(proxy, settings, tmp_path):
    proxy.faults = [answer("long " * 2_000_000)] * 9
    with pytest.raises(TeacherError, match="answers with more than 1000000 bytes"):
        server_teacher(settings, tmp_path)(QUESTIONS[:1], 1)


def test_a_byte_that_changed_on_the_disk_is_seen(proxy, settings, tmp_path):
    proxy.faults = [answer("It is even.")]
    server_teacher(settings, tmp_path)(QUESTIONS[:1], 1)
    (file,) = tmp_path.glob("teacher-*/responses.jsonl")
    whole = file.read_bytes()
    for place in range(len(whole) - 1):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(TeacherError, match=r"line 1 is damaged"):
            server_teacher(settings, tmp_path)(QUESTIONS[:1], 1)
    old = json.loads(whole)
    del old["sha256"]  # lines written before there was a hash are paid and stay
    file.write_bytes(json.dumps(old).encode() + b"\n")
    assert len(server_teacher(settings, tmp_path)(QUESTIONS[:1], 1)) == 1


def test_a_key_in_escapes_and_a_terminals_commands_reach_nothing(proxy, settings, tmp_path):
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
    body = '{"choices": [{"message": {"content": "Your key is KEY \\u001b[2J."}}]}'.replace("KEY", escaped)
    error = '{"detail": "KEY \\u001b]0;owned\\u0007"}'.replace("KEY", escaped)
    proxy.faults = [(200, body.encode()), (400, error.encode())]
    with pytest.raises(TeacherError, match=r"400.*\*\*\*") as raised:
        server_teacher(settings, tmp_path)(QUESTIONS[:1], 2)
    proxy.faults = [(400, b"\x1b[2J\x9b2J " + KEY.encode())]
    with pytest.raises(TeacherError) as raw:
        server_teacher(settings, tmp_path)(QUESTIONS[:1], 2)
    proxy.faults = [(200, f'{{"echo": "{escaped.upper().replace("U", "u")}"}}'.encode())] * 3
    with pytest.raises(TeacherError, match=r"what is no chat completion .*\*\*\*") as foreign:
        server_teacher(settings, tmp_path)(QUESTIONS[:1], 2)
    shown = f"{raised.value}{raw.value}{foreign.value}"
    assert KEY not in shown and "\\u" not in shown and shown.isprintable()
    (file,) = tmp_path.glob("teacher-*/responses.jsonl")
    assert KEY not in file.read_text() and escaped not in file.read_text()
    assert "\x1b" not in read_completion(read_lines(tmp_path)[0]["response"]).text


@pytest.mark.parametrize("key", ['sk-abc/1"2\\3', "a.b*c+d?e"])
def test_a_key_is_hidden_however_json_spells_it(key):
    slashed = json.dumps(key)[1:-1].replace("/", "\\/")
    spelt = "".join(f"\\u{ord(letter):04X}" for letter in key)
    assert hide_key(f"<{key}> <{slashed}> <{spelt}> <{key[:-1]}>", key) == f"<***> <***> <***> <{key[:-1]}>"
    assert json.loads(hide_key(json.dumps({"said": f"\\{key}"}), key)) == {"said": "\\***"}
    assert hide_key("any word", "word") == "any word"


def test_the_estimate_is_an_upper_bound(proxy, settings, tmp_path):
    samples = [(teacher_text(q), 0) for q in QUESTIONS]
    expected = estimate(settings.model_copy(update={"price_in": 3.0, "price_out": 15.0}), samples)
    assert (expected.requests, expected.completion_tokens) == (6, 48)
    assert expected.prompt_tokens > sum(len(prompt.split()) for prompt, _ in samples)
    assert expected.dollars == pytest.approx((3 * expected.prompt_tokens + 15 * 48) / 1e6)


RUN = """
import os, signal, sys, time
from pathlib import Path
from kardlib.data.files import Question
from kardlib.kard.llm import server_teacher
from kardlib.settings import TeacherSettings
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
os.fsync = lambda file: time.sleep(0.05)  # a slow disk, so that a signal comes while a response is written
questions = [Question(f"q{i}", f"Is {i} an even number?", ("yes", "no"), i % 2) for i in range(6)]
server_teacher(TeacherSettings.model_validate_json(sys.argv[1]), Path(sys.argv[2]))(questions, 8)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_loses_no_rationale_and_pays_none_twice(how, proxy, settings, tmp_path):
    proxy.delay = 0.25
    child = subprocess.Popen([sys.executable, "-c", RUN, settings.model_dump_json(), str(tmp_path)], cwd=REPOSITORY,
                             stdout=subprocess.PIPE, text=True)  # fmt: skip
    while not list(tmp_path.glob("teacher-*/responses.jsonl")) or len(read_lines(tmp_path)) < 10:
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(how)
    child.wait()
    time.sleep(0.5)  # what was under way reaches the proxy's upstream
    kept = read_lines(tmp_path)
    assert 10 <= len(kept) < 48
    lost = proxy.answered - len(kept)  # paid and not yet received when the process was killed
    assert lost == 0 if how == signal.SIGINT else 0 <= lost <= settings.concurrency
    (file,) = tmp_path.glob("teacher-*/responses.jsonl")
    with file.open("ab") as torn:
        torn.write(b'{"number": 0, "da')

    asked = len(proxy.requests)
    written = server_teacher(settings, tmp_path)(QUESTIONS, 8)
    assert len(written) == 48
    assert len(proxy.requests) - asked == 48 - len(kept)
    assert read_lines(tmp_path)[: len(kept)] == kept and len(read_lines(tmp_path)) == 48
    assert len({line["response"]["id"] for line in read_lines(tmp_path)}) == 48


def test_a_damaged_line_is_named(settings, tmp_path):
    server_teacher(settings, tmp_path)(QUESTIONS[:1], 2)
    (file,) = tmp_path.glob("teacher-*/responses.jsonl")
    file.write_bytes(b'{"number": 3}\n' + file.read_bytes())
    with pytest.raises(TeacherError, match=r"responses.jsonl, line 1 is damaged: remove the line and run again"):
        server_teacher(settings, tmp_path)(QUESTIONS, 2)


def test_empty_rationales_are_left_out_and_an_empty_first_one_stops(proxy, settings, tmp_path, capsys):
    def say(content):
        return (200, json.dumps({"choices": [{"message": {"content": content}}]}).encode())

    proxy.faults = [say(None)]
    with pytest.raises(TeacherError, match=r"the first answer is empty: raise teacher.max_tokens"):
        server_teacher(settings, tmp_path)(QUESTIONS[:2], 2)
    assert len(proxy.requests) == 1
    cut = {"choices": [{"message": {"content": "It is even, as"}, "finish_reason": "length"}]}
    proxy.faults = [say("It is even.\n\nTherefore, the answer is (A).")] * 2 + [(200, json.dumps(cut).encode())]
    written = server_teacher(settings, tmp_path)(QUESTIONS[:2], 2)
    assert [r.id for r in written] == ["q0/0", "q1/0", "q1/1"] and len(proxy.requests) == 4
    assert written[0].text == "It is even. Therefore, the answer is (A)." and written[0].answer == 0
    said = capsys.readouterr().out
    assert "1 of 4 rationales are empty and left out" in said
    assert "1 of 4 rationales end at teacher.max_tokens: raise it" in said
    proxy.faults = [say(None)] + [say("So it is.")] * 3  # this server has written before: it is not asked for nothing
    assert [r.id for r in server_teacher(settings, tmp_path)(QUESTIONS[2:4], 2)] == ["q2/0", "q3/0", "q3/1"]


NAMES = st.sampled_from(["choices", "message", "content", "usage", "prompt_tokens"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner),
    max_leaves=8,
)


@given(json_values | json_values.map(lambda v: {"choices": [{"message": {"content": v}}], "usage": v}))
def test_a_response_is_read_or_refused(value):
    try:
        completion = read_completion(value)
    except ValueError:
        return
    assert isinstance(completion, Completion) and completion.text.encode() is not None
    assert all(n is None or n >= 0 for n in (completion.prompt_tokens, completion.completion_tokens))


@pytest.mark.parametrize(("changes", "words"), [
    ({"teacher.base_url": "localhost:8000"}, "teacher.base_url must be a plain address such as http"),
    ({"teacher.base_url": f"https://me:{KEY}@host/v1", "teacher.model": "m"}, "a key belongs in the environment"),
    ({"teacher.base_url": f"https://host/v1?key={KEY}", "teacher.model": "m"}, "a key belongs in the environment"),
    ({"teacher.base_url": "http://host:99999/v1", "teacher.model": "m"}, "must be a plain address"),
    ({"teacher.base_url": "http://host/v1"}, "teacher.model is missing"),
    ({"teacher.key_variable": KEY}, "teacher.key_variable"),
    ({"teacher.spending_limit": 5}, "set teacher.price_in and teacher.price_out"),
    ({"teacher.temperature": 0}, "teacher.temperature"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_one_sentence_without_the_key(changes, words, capsys):
    with pytest.raises(SettingsError, match=words) as error:
        preset().override(changes)
    assert KEY not in str(error.value) and "\n" not in str(error.value)


def test_the_rationales_of_any_data_come_from_the_server_if_one_is_set(proxy, settings, tmp_path):
    rows = [{"id": q.id, "sent1": q.text, "sent2": "", "ending0": "yes", "ending1": "no", "label": q.answer}
            for q in QUESTIONS]  # fmt: skip
    for file, lines in {"train": rows[:4], "test": rows[4:]}.items():
        path = tmp_path / "data" / "kard" / "mine" / f"{file}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(json.dumps, lines)))
    changes = {f"teacher.{name}": getattr(settings, name) for name in ("base_url", "model", "max_tokens")}
    own = preset("smoke", "mine", str(tmp_path / "data")).override(changes)
    rationales = write_rationales(open_settings(own, Store(tmp_path / "store")))
    written = rationales.written
    assert [r.id for r in written["train"]] == [f"q{i}/{j}" for i in range(3) for j in range(3)]
    assert [r.id for r in written["silver"]] == [f"q3/{j}" for j in range(3)]
    assert len(read_lines(tmp_path / "store")) == 12
    assert rationales.counts.written == 6  # l is 2 at the smoke scale
