"""The teacher behind an OpenAI-compatible chat server: `r_ij = LLM(p, x_i, y_i)`, one request for each rationale.

Every response is one line of `teacher-{hash}/responses.jsonl` in the store, with its request, date and hash, and counts
once it is on disk: no such rationale is paid twice. Ctrl-C waits for what is under way; a kill loses up to
`teacher.concurrency` requests, which are asked and paid again. `lost.jsonl` beside it holds what was or may have been
paid without a response to use: unusable and endless answers, and attempts that broke off. Both count against the limit.
The first hash is of address, model and parameters. `--force` keeps the folder: delete it to ask again.

Threads send the requests and write the responses, so that Ctrl-C loses none; the caller's thread counts them, so that a
notebook can call this.
"""

import hashlib
import json
import os
import pkgutil
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO

from kardlib.artifacts.disk import clear_if_full
from kardlib.artifacts.provenance import now
from kardlib.artifacts.store import canonical_json, locked
from kardlib.data.answers import parse_answer
from kardlib.data.files import Question
from kardlib.data.prompts import teacher_text
from kardlib.errors import CONTROL, KardError
from kardlib.kard.teacher import Rationale, Teacher
from kardlib.settings import TeacherSettings

if TYPE_CHECKING:
    import openai  # imported late elsewhere: it takes a second

BYTES_PER_TOKEN = 3  # English has four or more, most other scripts about three: estimates are rather high than low
MAX_BYTES = 1_000_000  # of an answer: reading one takes fifty times its size
ESCAPED = '"\\/'  # JSON may write a backslash before these
FIELDS = {"number", "date", "server", "request", "response"}  # of a line; those without a hash have no other
ATTEMPTS = 3  # to send a request whose response is no chat completion

Sample = tuple[str, int]  # a prompt, and the number of one of the texts that are sampled for it


class TeacherError(KardError, RuntimeError):
    """The key, the server or the spending limit ended the run; finished rationales are kept."""


@dataclass(frozen=True)
class Completion:
    """The text of a response; tokens are None if the server does not count them."""

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    cut: bool = False  # at the most tokens that it may have


@dataclass(frozen=True)
class Estimate:
    """Requests and their cost at most: prompts by their length in bytes, completions of the full length."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    dollars: float


class Purse:
    """What has been spent into a folder, and whether more may be; shared by the threads that ask."""

    def __init__(self, settings: TeacherSettings, file: Path) -> None:
        self.settings, self.file, self.lock = settings, file, threading.Lock()
        self.spent = sum(line["dollars"] for line in read_lines(file))
        self.dearer = 1.0  # how many times its estimate a request has cost at most: some servers count as they like
        self.asked: dict[Future[Completion], Sample] = {}  # what is under way

    def pay(self, prompt: str, completion: Completion) -> float:
        """Count a request that was answered; returns what it cost."""
        read, wrote = completion.prompt_tokens, completion.completion_tokens  # by the server's count, if it gives one
        read = estimate_tokens(prompt) if read is None else read
        cost = price(self.settings, read, estimate_tokens(completion.text) if wrote is None else wrote)
        expected = self.estimate([(prompt, 0)])
        with self.lock:
            self.spent += cost
            self.dearer = max(self.dearer, self.dearer * cost / expected if expected else 1)
        return cost

    def lose(self, prompt: str, completion: Completion | None, why: str) -> None:
        """Count an attempt without a response to use, at its highest price if the server says none, and keep that."""
        cost = self.pay(prompt, completion) if completion else self.estimate([(prompt, 0)])
        with self.lock, self.file.open("ab") as lines:
            self.spent += 0 if completion else cost
            lines.write(seal({"date": now(), "dollars": cost, "why": why}))

    def estimate(self, samples: Iterable[Sample]) -> float:
        """Dollars at most for these samples, by what this server's answers cost so far."""
        return self.dearer * estimate(self.settings, samples).dollars

    def affords(self, *more: Sample) -> bool:
        """Whether the limit allows what is under way and these."""
        limit = self.settings.spending_limit
        return limit is None or self.spent + self.estimate([*more, *list(self.asked.values())]) <= limit


def server_teacher(settings: TeacherSettings, root: Path) -> Teacher:
    """The teacher at `settings.base_url`; `root` is the store's folder.

    An empty rationale is left out, so a question may have fewer than `l`. It raises TeacherError, after which the same
    call goes on from what is finished.
    """
    parameters: dict[str, Any] = {"model": settings.model, "temperature": settings.temperature}
    parameters[settings.limit_name] = settings.max_tokens
    spec = canonical_json({"base_url": settings.base_url, **parameters})
    name = f"teacher-{hashlib.sha256(spec.encode()).hexdigest()[:16]}"
    file = root / name / "responses.jsonl"

    def write(questions: Sequence[Question], l: int) -> list[Rationale]:
        prompts = {q.id: teacher_text(q) for q in questions}
        samples = list(dict.fromkeys((prompts[q.id], j) for q in questions for j in range(l)))
        kept = read_responses(file)
        if not kept.keys() >= set(samples):
            with locked(root, name), clear_if_full(root):
                ask_missing(settings, parameters, samples, file)
            kept = read_responses(file)
        written, alike = [], 0
        for q in questions:
            texts = [text for j in range(l) if (text := kept[prompts[q.id], j].text)]
            written += [Rationale(q.id, j, text, parse_answer(text, q.options)) for j, text in enumerate(texts)]
            alike += len(set(texts)) < len(texts)
        if empty := len(questions) * l - len(written):
            print(f"{empty} of {len(questions) * l} rationales are empty and left out")
        if cut := sum(kept[prompts[q.id], j].cut for q in questions for j in range(l)):
            print(f"{cut} of {len(questions) * l} rationales end at teacher.max_tokens: raise it")
        if alike:  # some servers ignore the temperature unless the model's own generation config says to sample
            print(f"{alike} of {len(questions)} questions have the same rationale twice: does the server sample?")
        return written

    return write


def estimate(settings: TeacherSettings, samples: Iterable[Sample]) -> Estimate:
    """Requests, tokens and dollars at most for these samples."""
    prompts = [estimate_tokens(prompt) for prompt, _ in samples]
    completions = settings.max_tokens * len(prompts)
    return Estimate(len(prompts), sum(prompts), completions, price(settings, sum(prompts), completions))


def estimate_tokens(text: str) -> int:
    """A number of tokens from a text's length in bytes."""
    return len(text.encode()) // BYTES_PER_TOKEN + 1


def price(settings: TeacherSettings, prompt_tokens: int, completion_tokens: int) -> float:
    """Dollars for tokens read and written."""
    return (prompt_tokens * settings.price_in + completion_tokens * settings.price_out) / 1e6


def announce(settings: TeacherSettings, expected: Estimate, spent: float) -> None:
    """Print the estimate, and whether the spending limit allows it."""
    cost = f"at most ${expected.dollars:.2f}" if settings.price_in or settings.price_out else "no prices are set"
    print(
        f"teacher {settings.model} at {settings.base_url}: {expected.requests} requests, about "
        f"{expected.prompt_tokens} tokens to read and at most {expected.completion_tokens} to write ({cost})",
        flush=True,
    )
    if settings.spending_limit and spent + expected.dollars > settings.spending_limit:
        print(
            f"that may be more than what is left of teacher.spending_limit (${settings.spending_limit:.2f}, of which "
            f"${spent:.2f} are spent): the run will stop there and keep what is finished",
            flush=True,
        )


def ask_missing(settings: TeacherSettings, parameters: dict[str, Any], samples: Sequence[Sample], file: Path) -> None:
    """Ask for all samples without a response and add the responses to `file`. Raises TeacherError.

    The first request is sent alone, so that a wrong key or address costs one. After an error, Ctrl-C or the spending
    limit no more are sent, and the responses to those sent are waited for and kept: by the threads that asked, which
    Ctrl-C does not reach. A request without a response counts against the limit at its highest price.
    """
    kept, purse = read_responses(file), Purse(settings, file.with_name("lost.jsonl"))
    missing = deque(sample for sample in samples if sample not in kept)
    for (prompt, _), completion in kept.items():
        purse.pay(prompt, completion)
    announce(settings, estimate(settings, missing), purse.spent)
    key, began, sent = read_key(settings), time.monotonic(), purse.asked
    done = first = len(samples) - len(missing)
    stop: BaseException | None = None
    file.parent.mkdir(parents=True, exist_ok=True)
    ended = SimpleQueue[Future[Completion]]()  # waiting for it leaves no lock behind when Ctrl-C comes
    client, pool = open_client(settings, key, purse), ThreadPoolExecutor(settings.concurrency)
    with file.open("ab") as lines, client, pool:
        lines.truncate(file.read_bytes().rfind(b"\n") + 1)  # a kill may have left a line without its end

        def ask(sample: Sample) -> Completion:
            request = {"messages": [{"role": "user", "content": sample[0]}], **parameters}
            record = request_completion(client, request, settings, key, purse)
            with purse.lock:
                keep({"number": sample[1], "date": now(), "server": settings.base_url, **record}, lines)
            return read_completion(record["response"])

        try:
            while sent or (missing and not stop):
                while missing and not stop and len(sent) < (settings.concurrency if done > first else 1):
                    if not purse.affords(missing[0]):
                        stop = stop if sent else TeacherError(used_up(settings))
                        break
                    sample = missing.popleft()
                    sent[future := pool.submit(ask, sample)] = sample
                    future.add_done_callback(ended.put)
                if not sent:
                    continue
                prompt, _ = sent.pop(future := ended.get())
                if error := future.exception():
                    stop = stop or error
                    continue
                done, completion = done + 1, future.result()
                purse.pay(prompt, completion)
                if done == first + 1 and not completion.text and not any(c.text for c in kept.values()):
                    stop = TeacherError("the first answer is empty: raise teacher.max_tokens or take another model")
                if done == len(samples) or (done - first) % max(1, len(samples) // 20) == 0:
                    took = f"{time.monotonic() - began:.0f} s"
                    print(f"  {done} of {len(samples)} rationales, ${purse.spent:.2f}, {took}", flush=True)
        except KeyboardInterrupt:
            print(f"stopping: the responses to {len(sent)} requests are waited for", flush=True)
            raise
    if isinstance(stop, TeacherError):
        raise TeacherError(f"{stop}; {done} of {len(samples)} rationales are kept, the same command goes on from there")
    if stop:
        raise stop


def keep(record: dict[str, Any], lines: BinaryIO) -> None:
    """Write a record as a line that is on the disk when this returns."""
    lines.write(seal(record))
    lines.flush()
    os.fsync(lines.fileno())


def read_key(settings: TeacherSettings) -> str:
    """The server's key, from the environment alone. Raises TeacherError, which never shows the key."""
    key = os.environ.get(settings.key_variable, "").strip()
    if not key:
        raise TeacherError(
            f"the key of {settings.base_url} is missing: set the environment variable {settings.key_variable} "
            "(to any word where the server asks for none)"
        )
    if not key.isascii() or not key.isprintable():
        raise TeacherError(f"the environment variable {settings.key_variable} holds what cannot be a key: set it again")
    return key


def request_completion(
    client: "openai.OpenAI", request: dict[str, Any], settings: TeacherSettings, key: str, purse: Purse
) -> dict[str, Any]:
    """A request and the server's response, unchanged but for the key. Raises TeacherError.

    The client itself repeats requests whose fault may pass (408, 409, 429, 5xx, timeouts, broken connections): after
    the time that Retry-After names, up to two minutes, else after 0.5, 1, 2, ... 8 seconds.
    """
    import openai

    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(0.25 * 2**attempt)
        try:
            body = client.chat.completions.with_raw_response.create(**request).text
        except openai.APIError as error:
            raise TeacherError(explain(error, settings, key)) from None
        try:
            response = json.loads(hide_key(body, key))
            read_completion(response)
            return {"request": request, "response": response}
        except (ValueError, RecursionError):
            if len(body) <= MAX_BYTES and (used := read_usage(body)):
                purse.lose(request["messages"][0]["content"], used, "no chat completion")
            if not purse.affords():
                raise TeacherError(used_up(settings)) from None
    wrong = f"more than {MAX_BYTES} bytes" if len(body) > MAX_BYTES else "what is no chat completion"
    raise TeacherError(
        f"{settings.base_url} answers with {wrong} ({shorten(body, key)}): correct "
        "teacher.base_url, which usually ends in /v1, or look at the server"
    )


def open_client(settings: TeacherSettings, key: str, purse: Purse) -> "openai.OpenAI":
    """A client of the server, which repeats requests and is limited."""
    import openai

    return openai.OpenAI(
        base_url=settings.base_url, api_key=key, timeout=settings.timeout, max_retries=settings.retries,
        http_client=limited_client(purse),
    )  # fmt: skip


def limited_client(purse: Purse) -> Any:
    """An HTTP client that reads no more than `MAX_BYTES` of an answer, and counts what is paid without one.

    What it sends raises TeacherError once the spending limit is used up.
    """
    import openai

    # by openai's releases httpx or httpx2
    httpx: Any = pkgutil.resolve_name(openai.DefaultHttpxClient.__mro__[1].__module__.split(".")[0])

    class Limited(openai.DefaultHttpxClient):
        def send(self, request: Any, **options: Any) -> Any:
            prompt = json.loads(request.content)["messages"][0]["content"]
            if not purse.affords():  # what earlier attempts have cost
                raise TeacherError(used_up(purse.settings))
            try:
                response, body = super().send(request, **options | {"stream": True}), b""
                for part in response.iter_bytes():
                    body += part
                    if len(body) > MAX_BYTES:
                        purse.lose(prompt, None, "too long an answer")
                        break
                response.close()
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):  # nothing was sent
                raise
            except httpx.TransportError as error:
                purse.lose(prompt, None, type(error).__name__)
                raise
            kept = {n: v for n, v in response.headers.items() if n not in ("content-encoding", "transfer-encoding")}
            return httpx.Response(response.status_code, headers=kept, content=body[: MAX_BYTES + 1], request=request)

    return Limited()


def used_up(settings: TeacherSettings) -> str:
    """What is said when the spending limit allows no more."""
    return f"teacher.spending_limit (${settings.spending_limit:.2f}) is used up: raise it for more"


def read_usage(body: str) -> Completion | None:
    """The tokens that a server counts for an answer without a text to use; None where it counts none."""
    try:
        used = json.loads(body)["usage"]
        return read_completion({"choices": [{"message": {"content": None}}], "usage": used}) if used else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def read_completion(response: Any) -> Completion:
    """The text of a chat completion on one line, and its tokens. Raises ValueError if it is no chat completion."""
    try:
        text, end = response["choices"][0]["message"]["content"], response["choices"][0].get("finish_reason")
        usage = response.get("usage") or {}
        read, wrote = usage.get("prompt_tokens"), usage.get("completion_tokens")
    except (LookupError, TypeError, AttributeError):
        raise ValueError("no chat completion") from None
    if not isinstance(text, str | None):
        raise ValueError("no text")
    whole = (text or "").encode(errors="replace").decode()  # JSON can spell half a surrogate pair
    read, wrote = (n if type(n) is int and 0 <= n < 10**9 else None for n in (read, wrote))
    return Completion(one_line(whole), read, wrote, cut=end == "length")


def seal(record: dict[str, Any]) -> bytes:
    """A line of a file, with the hash of its fields, so that a byte that changes on the disk is seen."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    return json.dumps({**record, "sha256": digest}).encode() + b"\n"


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The records of a file that `seal` wrote; a last line without its end does not count. Raises TeacherError."""
    *lines, _ = file.read_bytes().split(b"\n") if file.exists() else [b""]
    for number, line in enumerate(lines, 1):
        try:
            record = dict(json.loads(line))
            digest = record.pop("sha256", None)
            if (digest is None and record.keys() != FIELDS) or (digest and line + b"\n" != seal(record)):
                raise ValueError("changed")
            if "request" in record:
                read_completion(record["response"])
                _ = record["request"]["messages"][0]["content"], record["number"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise TeacherError(f"{file}, line {number} is damaged: remove the line and run again") from None
        yield record


def read_responses(file: Path) -> dict[Sample, Completion]:
    """The completions in a file of responses. Raises TeacherError."""
    kept: dict[Sample, Completion] = {}
    for record in read_lines(file):
        sample = (record["request"]["messages"][0]["content"], record["number"])
        kept.setdefault(sample, read_completion(record["response"]))
    return kept


def explain(error: "openai.APIError", settings: TeacherSettings, key: str) -> str:
    """The sentence of a TeacherError: what went wrong, and what to do."""
    import openai

    server = settings.base_url
    if isinstance(error.__cause__, TeacherError):
        return str(error.__cause__)
    if isinstance(error, openai.APITimeoutError):
        late = f"{server} did not answer within teacher.timeout ({settings.timeout:g} s)"
        return f"{late}: look at the server or raise it"
    if not isinstance(error, openai.APIStatusError):
        why = shorten(error.__cause__ or error, key)
        return f"{server} cannot be reached ({why}): start it or correct teacher.base_url"
    code = error.status_code
    body = error.body["message"] if isinstance(error.body, dict) and "message" in error.body else error.body
    said = f"{code}: {shorten(body, key)}"
    if code in (401, 403):
        return f"{server} refuses the key in {settings.key_variable} ({said}): set one that is valid there"
    if code == 404:
        where = f"{server} knows no model {settings.model!r} or is no such address"
        return f"{where} ({said}): correct teacher.model or teacher.base_url"
    if code == 429:
        after = error.response.headers.get("retry-after", "")
        when = f"in {after} s" if after.isdigit() else "later"
        return f"{server} takes no more requests ({said}): run again {when} or lower teacher.concurrency"
    if code >= 500:
        return f"{server} fails ({said}): look at the server or run again later"
    wrong = "correct the settings of teacher, or the question where it is at fault"
    return f"{server} refuses the request ({said}): {wrong}"


def shorten(text: object, key: str) -> str:
    """A server's words without the key and without control characters, at most 160 characters on one line."""
    line = one_line(hide_key(str(text)[:10_000], key))
    return line if len(line) <= 160 else f"{line[:160]}..."


def one_line(text: str) -> str:
    """A text without control characters and without more than one space at a place."""
    return " ".join(CONTROL.sub(" ", text).split())


def hide_key(text: str, key: str) -> str:
    """A server's words without the key, whose letters JSON may spell otherwise; a short one may be any word."""
    if len(key) < 8:
        return text
    spelt = ""
    for c in key:
        plain = (r"\\?" if c in ESCAPED else "") + re.escape(c)
        spelt += rf"(?:{plain}|\\u(?i:{ord(c):04x}))"
    return re.sub(spelt, "***", text)
