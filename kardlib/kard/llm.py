"""A teacher behind any OpenAI-compatible chat server: `r_ij = LLM(p, x_i, y_i)`, one request for each rationale.

Whatever the server answers is one line of `teacher-{hash}/responses.jsonl` in the store, with the request and the date,
on disk before it counts. A run that was killed, that used up its spending limit or that asks for more rationales pays
for none twice. The folder's name says address, model and parameters; `--force` leaves it alone: delete it to ask anew.

Requests go out from threads, answers are counted and written by the caller's: a notebook may call this as it is.
"""

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from kardlib.artifacts.store import canonical_json, clear_if_full, locked, now
from kardlib.data.answers import parse_answer
from kardlib.data.files import Question
from kardlib.data.prompts import teacher_text
from kardlib.errors import KardError
from kardlib.kard.teacher import Rationale, Teacher
from kardlib.settings import TeacherSettings

if TYPE_CHECKING:
    import openai  # imported late: only who asks a server pays the second that it takes

BYTES_PER_TOKEN = (
    3  # English has four or more, most other scripts about three: prompts are counted high rather than low
)
NONSENSE = 3  # times that a request is sent while the server answers it with what is no chat completion

Job = tuple[str, int]  # a prompt, and which of its samples


class TeacherError(KardError, RuntimeError):
    """The key, the server or the spending limit ended the run; what is finished is kept."""


@dataclass(frozen=True)
class Answer:
    """What a response says; tokens are None where the server does not count them."""

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True)
class Estimate:
    """What asking will take. Prompts are counted by their length in bytes, what is written at its limit."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    dollars: float


def server_teacher(settings: TeacherSettings, root: Path) -> Teacher:
    """The teacher at `settings.base_url`; `root` is the store's folder.

    Prints an estimate before the first request. A rationale that comes back empty is left out, so a question may have
    fewer than `l`. Raises TeacherError, after which the same call goes on from what is finished.
    """
    parameters = {
        "model": settings.model,
        "temperature": settings.temperature,
        settings.limit_name: settings.max_tokens,
    }
    spec = canonical_json({"base_url": settings.base_url, **parameters})
    name = f"teacher-{hashlib.sha256(spec.encode()).hexdigest()[:16]}"
    file = root / name / "responses.jsonl"

    def write(questions: Sequence[Question], l: int) -> list[Rationale]:
        prompts = {q.id: teacher_text(q) for q in questions}
        jobs = list(dict.fromkeys((prompts[q.id], j) for q in questions for j in range(l)))
        kept = read_responses(file)
        if not kept.keys() >= set(jobs):
            with locked(root, name), clear_if_full(root):
                ask_missing(settings, parameters, jobs, file)
            kept = read_responses(file)
        written, alike = [], 0
        for q in questions:
            texts = [text for j in range(l) if (text := kept[prompts[q.id], j].text)]
            written += [Rationale(q.id, j, text, parse_answer(text, q.options)) for j, text in enumerate(texts)]
            alike += len(set(texts)) < len(texts)
        if empty := len(questions) * l - len(written):
            print(f"{empty} of {len(questions) * l} rationales are empty and left out")
        if alike:  # some servers sample only if the model's own generation config says so, whatever the temperature
            print(f"{alike} of {len(questions)} questions have the same rationale twice: does the server sample?")
        return written

    return write


def estimate(settings: TeacherSettings, jobs: Iterable[Job]) -> Estimate:
    """Requests, tokens and dollars at most, for one rationale of every job."""
    read = [count_tokens(prompt) for prompt, _ in jobs]
    wrote = settings.max_tokens * len(read)
    return Estimate(len(read), sum(read), wrote, price(settings, sum(read), wrote))


def count_tokens(text: str) -> int:
    return len(text.encode()) // BYTES_PER_TOKEN + 1


def price(settings: TeacherSettings, prompt_tokens: int, completion_tokens: int) -> float:
    """Dollars."""
    return (prompt_tokens * settings.price_in + completion_tokens * settings.price_out) / 1e6


def spent_on(settings: TeacherSettings, prompt: str, answer: Answer) -> float:
    """Dollars, from the server's own count of tokens where it gives one."""
    read, wrote = answer.prompt_tokens, answer.completion_tokens
    return price(
        settings,
        count_tokens(prompt) if read is None else read,
        count_tokens(answer.text) if wrote is None else wrote,
    )


def announce(settings: TeacherSettings, expected: Estimate, spent: float) -> None:
    """Print what asking will take, and whether the spending limit allows it."""
    cost = f"at most ${expected.dollars:.2f}" if settings.price_in or settings.price_out else "no prices are set"
    print(
        f"teacher {settings.model} at {settings.base_url}: {expected.requests} requests, about "
        f"{expected.prompt_tokens} tokens to read and at most {expected.completion_tokens} to write ({cost})",
        flush=True,
    )
    if settings.spending_limit is not None and spent + expected.dollars > settings.spending_limit:
        print(
            f"that may be more than what is left of teacher.spending_limit (${settings.spending_limit:.2f}, of which "
            f"${spent:.2f} are spent): the run will stop there and keep what is finished",
            flush=True,
        )


def ask_missing(settings: TeacherSettings, parameters: dict[str, Any], jobs: Sequence[Job], file: Path) -> None:
    """Ask for all jobs without a response and add the responses to `file`.

    The first request goes alone, so that a wrong key or address costs one. After an error, Ctrl-C or at the spending
    limit no more are sent, and those under way are waited for and kept. What is under way counts against the limit at
    its highest price; what a server charges for answers that never arrived is not known here. Raises TeacherError.
    """
    import openai

    kept = read_responses(file)
    todo = deque(job for job in jobs if job not in kept)
    spent = sum(spent_on(settings, prompt, kept[prompt, number]) for prompt, number in kept)
    announce(settings, estimate(settings, todo), spent)
    key, limit, began = read_key(settings), settings.spending_limit, time.monotonic()
    done = first = len(jobs) - len(todo)
    stop: BaseException | None = None
    under_way: dict[Future[dict[str, Any]], Job] = {}
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        file.open("ab") as lines,
        openai.OpenAI(
            base_url=settings.base_url, api_key=key, timeout=settings.timeout, max_retries=settings.retries
        ) as client,
        ThreadPoolExecutor(settings.concurrency) as pool,
    ):
        lines.truncate(whole_bytes(file))  # a kill may have left a line without its end
        while under_way or (todo and not stop):
            while todo and not stop and len(under_way) < (settings.concurrency if done > first else 1):
                at_most = spent + estimate(settings, [todo[0], *under_way.values()]).dollars
                if limit is not None and at_most > limit:
                    if not under_way:
                        stop = TeacherError(f"teacher.spending_limit (${limit:.2f}) is used up: raise it for more")
                    break
                request = as_request(todo[0], parameters)
                under_way[pool.submit(ask, client, request, settings, key)] = todo.popleft()
            try:
                ready = wait(under_way, return_when=FIRST_COMPLETED).done
            except KeyboardInterrupt as interrupt:
                if stop:
                    raise
                print(f"stopping: {len(under_way)} requests under way are waited for", flush=True)
                stop = interrupt
                continue
            for future in ready:
                job = under_way.pop(future)
                if error := future.exception():
                    stop = stop or error
                    continue
                response = future.result()
                record = {"number": job[1], "date": now(), "server": settings.base_url}
                append(lines, record | {"request": as_request(job, parameters), "response": response})
                done += 1
                answer = read_answer(response)
                spent += spent_on(settings, job[0], answer)
                if done == first + 1 and not answer.text:
                    stop = TeacherError("the first answer is empty: raise teacher.max_tokens or take another model")
                if done == len(jobs) or (done - first) % max(1, len(jobs) // 20) == 0:
                    seconds = time.monotonic() - began
                    print(f"  {done} of {len(jobs)} rationales, ${spent:.2f}, {seconds:.0f} s", flush=True)
    if isinstance(stop, TeacherError):
        raise TeacherError(f"{stop}; {done} of {len(jobs)} rationales are kept, the same command goes on from there")
    if stop:
        raise stop


def as_request(job: Job, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": job[0]}], **parameters}


def append(lines: BinaryIO, record: dict[str, Any]) -> None:
    """Add one line; it is on disk when this returns."""
    lines.write(json.dumps(record).encode() + b"\n")
    lines.flush()
    os.fsync(lines.fileno())


def read_key(settings: TeacherSettings) -> str:
    """The server's key, from the environment and nowhere else. Raises TeacherError, which never holds the key."""
    key = os.environ.get(settings.key_variable, "").strip()
    if not key:
        raise TeacherError(
            f"the key of {settings.base_url} is missing: set the environment variable {settings.key_variable} "
            "(to any word where the server asks for none)"
        )
    if not key.isascii() or not key.isprintable():
        raise TeacherError(f"the environment variable {settings.key_variable} holds what cannot be a key: set it again")
    return key


def ask(client: "openai.OpenAI", request: dict[str, Any], settings: TeacherSettings, key: str) -> dict[str, Any]:
    """The server's response to one request, as it came. Raises TeacherError.

    The client retries what may pass (408, 409, 429, 5xx, timeouts, cut connections): after what Retry-After asks for
    up to two minutes, else after 0.5, 1, 2, ... 8 seconds.
    """
    import openai

    for attempt in range(NONSENSE):
        if attempt:
            time.sleep(0.25 * 2**attempt)
        try:
            body = client.chat.completions.with_raw_response.create(**request).text
        except openai.APIError as error:
            raise TeacherError(describe(error, settings, key)) from None
        try:
            response = json.loads(hide(body, key))
            read_answer(response)
            return dict(response)
        except (ValueError, RecursionError):
            continue
    raise TeacherError(
        f"{settings.base_url} answers with what is no chat completion ({quote(body, key)}): correct "
        "teacher.base_url, which usually ends in /v1, or look at the server"
    )


def read_answer(response: Any) -> Answer:
    """What one chat completion says. Raises ValueError if it is none."""
    try:
        text = response["choices"][0]["message"]["content"]
        usage = response.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    except (LookupError, TypeError, AttributeError):
        raise ValueError("no chat completion") from None
    if not isinstance(text, str | None):
        raise ValueError("no text")
    plain = " ".join((text or "").encode(errors="replace").decode().split())  # JSON can spell half a surrogate pair
    return Answer(plain, *(n if type(n) is int and 0 <= n < 10**9 else None for n in counts))


def read_responses(file: Path) -> dict[Job, Answer]:
    """The answers in a file of responses; a last line without its end does not count. Raises TeacherError."""
    kept: dict[Job, Answer] = {}
    if not file.exists():
        return kept
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break
            try:
                fields = json.loads(line)
                job = (fields["request"]["messages"][0]["content"], fields["number"])
                kept.setdefault(job, read_answer(fields["response"]))
            except (ValueError, LookupError, TypeError, RecursionError):
                raise TeacherError(f"{file}, line {number} is damaged: remove the line and run again") from None
    return kept


def whole_bytes(file: Path) -> int:
    """Length of a file up to the end of its last whole line."""
    return file.read_bytes().rfind(b"\n") + 1


def describe(error: "openai.APIError", settings: TeacherSettings, key: str) -> str:
    """What went wrong and what to do, as one clause."""
    import openai

    server = settings.base_url
    if isinstance(error, openai.APITimeoutError):
        return (
            f"{server} did not answer within teacher.timeout ({settings.timeout:g} s): look at the server or raise it"
        )
    if not isinstance(error, openai.APIStatusError):
        return (
            f"{server} cannot be reached ({quote(error.__cause__ or error, key)}): start it or correct teacher.base_url"
        )
    code = error.status_code
    body = error.body["message"] if isinstance(error.body, dict) and "message" in error.body else error.response.text
    said = f"{code}: {quote(body, key)}"
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
    return (
        f"{server} refuses the request ({said}): correct the settings of teacher, or the question where it is at fault"
    )


def quote(text: object, key: str) -> str:
    """What a server said, at most 160 characters on one line."""
    line = " ".join(hide(str(text), key).split())
    return line if len(line) <= 160 else f"{line[:160]}..."


def hide(text: str, key: str) -> str:
    """A server may repeat the key; one of fewer than eight characters is a placeholder and may be any word."""
    return text.replace(key, "***") if len(key) >= 8 else text
