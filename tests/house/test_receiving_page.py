"""docs/receiving.md: its facts are the code's, its examples run on what a real receiver got.

Its commands are typed in test_command_blocks.py.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from ast import literal_eval
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from events import MMS, MO, examples
from helpers import environment, set_account
from pages import cells
from standardwebhooks import Webhook
from test_pages import table_of

from postbacks import send_postback
from postbacks.accounts import secrets
from postbacks.catalogue import EVENTS, MAX_EVENT_BYTES, parse_event, table
from postbacks.catalogue.xml import render
from postbacks.cli import main
from postbacks.delivery.request import USER_AGENT, signature
from postbacks.devtools.receiver import MAX_BYTES, Answer, Receiver
from postbacks.settings import Settings
from postbacks.transport.handle import MAX_IDLE_S

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "receiving.md").read_text()
EVENT = examples()["SMS_MO", "N211"]
#: Event with the largest document: nothing but characters that XML writes as five.
LARGEST = MMS | dict.fromkeys(("KEYWORD", "SUBJECT"), "&" * (64 * 1024)) | {
    "CONTENT": ["http://a.example/" + "&" * 1000] * 121
}  # fmt: skip
MILLISECONDS = {
    "2013-11-05T05:41:08-05": 1_383_648_068_000,
    "2013-11-05T05:41:08-05:00": 1_383_648_068_000,
    "2013-11-05T10:41:08Z": 1_383_648_068_000,
    "2013-11-05T16:11:08.5+05:30": 1_383_648_068_500,
    "2013-11-05T05:41:08,123456789-05": 1_383_648_068_123,
    "2013-11-05T05:41:08.123456789-05": 1_383_648_068_123,
}


def blocks(language):
    """Codes of the page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def block(language):
    """The code of the page in a language that it has once."""
    (found,) = blocks(language)
    return found


def program(name):
    """Path of a program, without which the test is skipped."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"there is no {name}")
    return path


def output_of(*command, given=""):
    """Standard output of a command that succeeds without a word on standard error."""
    done = subprocess.run(
        command,
        input=given,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# -- the standing of the page ----------------------------------------------------------------------


def test_the_page_can_be_read_without_any_other():
    """Links to other pages are for those who have the repository; the line below the title leads to two of them."""
    alone, _, for_owners = PAGE.partition("\n## With postbacks installed\n")
    assert for_owners
    links = set(re.findall(r"\]\(([^)\s#]+)[^)\s]*\)", alone))
    assert links <= {"https://www.standardwebhooks.com", "README.md", "glossary.md", "../examples/receivers/"}


# -- signatures ------------------------------------------------------------------------------------


def python_says(headers, body, secret):
    """The page's Python."""
    names = {}
    exec(block("python"), names)
    return names["is_ours"](headers, body, secret)


def node_says(headers, body, secret):
    """The page's JavaScript."""
    given = json.dumps([headers, body.decode("latin-1"), secret])
    script = (
        f"{block('javascript')}\n"
        "const [headers, body, secret] = JSON.parse(require('fs').readFileSync(0, 'utf8'));\n"
        "console.log(isOurs(headers, Buffer.from(body, 'latin1'), secret));"
    )
    return output_of(program("node"), "-e", script, given=given) == "true\n"


@pytest.fixture
def signed_post(rig):
    """A POST as a receiver got it, and the account's two secrets: the older one and the newer one."""
    with Receiver() as receiver, environment(POSTBACKS_SECRET_KEY=secrets.new_key()):
        set_account("acme", url=receiver.url("/postbacks").replace("//", "//user:p%40ss@"))
        both = [
            CliRunner().invoke(main, ["account", "secret", "rotate", "acme"]).stdout.strip() for _ in range(2)
        ]
        send_postback.delay("acme", EVENT)
        rig.tick()
        rig.deliver()
        (received,) = receiver.received
    return received, *both


@pytest.mark.parametrize("says", [python_says, node_says])
def test_the_examples_know_ours_from_others(signed_post, says):
    received, old, new = signed_post
    headers, body = received.headers, received.body
    assert says(headers, body, old)
    assert says(headers, body, new)
    assert not says(headers, body, secrets.new_secret())
    assert not says(headers, body + b" ", new)
    assert not says({**headers, "webhook-timestamp": "1383648069"}, body, new)
    assert not says({**headers, "webhook-signature": "v1,AAAA v2,x nonsense"}, body, new)
    assert not says({name: headers[name] for name in headers if name != "webhook-signature"}, body, new)


def test_of_the_headers_those_are_signed_of_which_the_page_says_so(signed_post):
    received, _, secret = signed_post
    for names, _, signed in table_of(PAGE, "header | what it says"):
        for name in re.findall(r"`([\w-]+)`", names):
            if name == "webhook-signature":
                continue
            value = received.headers.get(name.lower(), "1")
            changed = {
                **received.headers,
                name.lower(): str(int(value) + 1) if value.isdigit() else f"{value}1",
            }
            assert python_says(changed, received.body, secret) == (signed == "no"), name


def test_the_document_and_the_headers_of_the_page_are_what_is_sent(signed_post):
    received, *_ = signed_post
    document = render(parse_event(EVENT))
    first, of_mms = (text.rstrip("\n").encode() for text in blocks("xml"))
    assert first == document == received.body
    assert of_mms == render(parse_event(examples()["MMS_MO", "N401"]))
    request_line, *lines = block("http").splitlines()
    shown = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert request_line == f"{received.method} {received.path} HTTP/1.1"
    assert shown.keys() == received.headers.keys() - {"authorization"}
    for name in ("accept", "content-type", "content-length", "user-agent"):
        assert shown[name] == received.headers[name]
    assert shown["user-agent"] == USER_AGENT
    assert shown["webhook-id"] == shown["postback-id"]
    assert received.headers["webhook-id"] == received.headers["postback-id"]
    assert b"acme" not in received.head + received.body


def vector():
    """The page's test vector, by its first column."""
    return {what: value.strip("`") for what, value in table_of(PAGE, "what | value")}


def test_the_test_vector_is_right_by_our_code_by_the_library_and_by_plain_hmac():
    values, body = vector(), blocks("xml")[0].rstrip("\n").encode()
    key = base64.b64decode(values["secret"].removeprefix("whsec_"))
    identity, stamp = values["`webhook-id`"], int(values["`webhook-timestamp`"])
    plain = hmac.new(key, f"{identity}.{stamp}.".encode() + body, hashlib.sha256).digest()
    wanted = values["`webhook-signature`"]
    assert wanted == "v1," + base64.b64encode(plain).decode()
    signer = Webhook(values["secret"])
    assert signer.sign(identity, datetime.fromtimestamp(stamp, UTC), body.decode()) == wanted
    ours = signature(identity, stamp * 1000 + 999, body, SimpleNamespace(signers=[signer]))
    assert ours == [f"webhook-id: {identity}", f"webhook-timestamp: {stamp}", f"webhook-signature: {wanted}"]
    assert set(ours) <= set(block("http").splitlines())
    assert values["key, as hexadecimal digits"] == key.hex()
    assert values["SHA-256 of the body"] == hashlib.sha256(body).hexdigest()
    assert f"{identity}.{stamp}.{body.decode()}".startswith(values["what is signed begins with"])
    assert f" {len(body)} bytes, with one line feed" in values["body"]
    assert (body.count(b"\n"), body.index(b"?>\n") > 0) == (1, True)


def posted_by_shell(folder, script, *, times=1):
    """Run the page's shell lines against a receiver, as often as that; what it got."""
    program("openssl")
    with Receiver() as receiver:
        text = script.replace("https://acme.example/postbacks", receiver.url())
        command = text[text.index("\ncurl ") :]
        (folder / "lines").write_text(text + command * (times - 1))
        done = subprocess.run(
            [program("sh"), "-eu", "lines"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("HTTP/1.1 200 OK") == times
        return receiver.received


def test_the_shell_lines_send_a_post_with_a_valid_signature(tmp_path):
    secret = vector()["secret"]
    first, second = posted_by_shell(tmp_path, block("sh"), times=2)
    assert python_says(first.headers, first.body, secret)
    assert first.body == render(parse_event(EVENT))
    assert first.postback_id == second.postback_id == first.headers["webhook-id"]
    assert (first.attempt, len(str(first.sequence))) == (1, 13)
    assert first.headers["content-type"] == "application/xml; charset=utf-8"
    changed = first.body.replace(b"STOP", b"STOQ")
    assert not python_says(first.headers, changed, secret)


def test_the_shell_lines_compute_the_test_vector(tmp_path):
    values = vector()
    fixed = block("sh").replace("now=$(date +%s)", f"now={values['`webhook-timestamp`']}")
    fixed = fixed.replace('id="try-$now"', f"id={values['`webhook-id`']}")
    (received,) = posted_by_shell(tmp_path, fixed)
    assert received.headers["webhook-signature"] == values["`webhook-signature`"]


# -- the document ----------------------------------------------------------------------------------


def test_every_code_of_the_page_is_the_catalogues():
    rows = [[cell.strip("`") for cell in row] for row in table_of(PAGE, "ORIGIN | CODE | what happened")]
    assert rows == [
        [row.origin, row.code, row.meaning, ", ".join(row.tags).replace("holding", "holds")]
        for row in table()
    ]


def test_the_page_says_of_every_tag_what_it_holds():
    """Tags of one row have one form; a closed set stands there whole."""
    forms = {}
    for event in EVENTS.values():
        for tag in event.tags:
            forms.setdefault(tag.name, []).append(tag.form)
    rows = [(names.split(", "), words) for names, words in table_of(PAGE, "tags | what they hold")]
    assert sorted(name for names, _ in rows for name in names) == sorted(forms)
    for names, words in rows:
        values = {value for name in names for form in forms[name] for value in form.values}
        if names != ["STATUSCODE"]:
            assert values == (set(re.findall(r"`([^`]+)`", words)) if values else set())
            assert values or len({form.words for name in names for form in forms[name]}) == 1


@pytest.mark.parametrize(
    "text", ["<!DOCTYPE x>", "<!--", "<![CDATA[x]]>", "<!ENTITY a 'b'>", "&a;", "\x00<\x01!"]
)
def test_no_postback_has_a_doctype_a_comment_or_cdata_whatever_somebody_writes(text):
    for event in (MO | {"TEXT": text}, MMS | {"SUBJECT": text, "CONTENT": ["http://a.example/<!--"]}):
        document = render(parse_event(event))
        assert b"<!" not in document
        assert b"\0" not in document
        assert parsed(document).tag == "POSTBACK"
        assert document.startswith(b"<?xml version='1.0' encoding='UTF-8'?>\n<POSTBACK><ORIGIN>")


def test_the_largest_document_is_within_the_page_s_limit():
    """An ampersand takes five bytes of the document and one of the event's JSON."""
    assert MAX_EVENT_BYTES * 0.95 < len(json.dumps(LARGEST)) <= MAX_EVENT_BYTES
    size = len(render(parse_event(LARGEST)))
    assert 1_000_000 < size < 1_400_000
    assert "no document has more than 2 MB" in PAGE
    assert size < MAX_BYTES  # `postbacks receive` takes it


def parsed(body):
    """Parse a body with the page's Python."""
    (cell,) = [why for language, why in table_of(PAGE, "language | so that") if language == "Python"]
    return eval(cell.split("`")[1], {"body": body, "ET": ET})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "cp037"])
def test_a_document_that_hides_its_doctype_in_another_encoding_is_refused(encoding):
    """Each is no UTF-8 or has a NUL byte, which the page has refused: a parser may follow the encoding, though it got text."""
    body = (
        f"<?xml version='1.0' encoding='{encoding}'?><!DOCTYPE a [<!ENTITY e 'x'>]><POSTBACK>&e;</POSTBACK>"
    ).encode(encoding)
    assert b"<!" not in body
    assert "no UTF-8 or has a NUL byte" in PAGE
    if b"\0" not in body:
        with pytest.raises(UnicodeDecodeError):
            parsed(body)


def test_the_feature_of_java_is_that_of_our_receiver():
    line = next(why for language, why in table_of(PAGE, "language | so that") if language == "Java")
    receiver = (ROOT / "examples" / "receivers" / "java" / "Receiver.java").read_text()
    assert line.split("`")[1] in receiver


def times_by_language():
    """The page's line of each language."""
    rows = table_of(PAGE, "language | line")
    return {language.split()[0]: line.strip("`") for language, line in rows}


def python_reads(line):
    """The page's Python, run here."""
    return [int(eval(line, {"datetime": datetime, "text": text}).timestamp() * 1000) for text in MILLISECONDS]


def node_reads(line):
    """The page's JavaScript."""
    script = f"for (const text of process.argv.slice(1)) console.log(({line}).getTime())"
    return output_of(program("node"), "-e", script, *MILLISECONDS).split()


def php_reads(line):
    """The page's PHP."""
    script = f'foreach (array_slice($argv, 1) as $text) echo ({line})->format("Uv"), "\\n";'
    return output_of(program("php"), "-r", script, "--", *MILLISECONDS).split()


def java_reads(line, folder):
    """The page's Java."""
    (folder / "Times.java").write_text(
        "import java.time.OffsetDateTime; class Times { public static void main(String[] texts) {"
        f" for (String text : texts) System.out.println({line}.toInstant().toEpochMilli()); }} }}"
    )
    return output_of(program("java"), str(folder / "Times.java"), *MILLISECONDS).split()


def go_reads(line, folder):
    """The page's Go."""
    (folder / "times.go").write_text(
        'package main\nimport ("fmt"; "os"; "regexp"; "time")\n'
        f"func main() {{ for _, text := range os.Args[1:] {{ at, err := {line}\n"
        "if err != nil { panic(err) }; fmt.Println(at.UnixMilli()) } }\n"
    )
    done = subprocess.run(
        [program("go"), "run", "times.go", *MILLISECONDS],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("language", "reads"), [("Python", python_reads), ("JavaScript", node_reads), ("PHP", php_reads)]
)
def test_one_line_reads_every_form_of_a_time(language, reads):
    for text in MILLISECONDS:
        parse_event(MO | {"RECEIVED": text})  # each may be sent
    assert list(map(int, reads(times_by_language()[language]))) == list(MILLISECONDS.values())


@pytest.mark.long
@pytest.mark.parametrize(("language", "reads"), [("Java", java_reads), ("Go", go_reads)])
def test_one_line_reads_every_form_of_a_time_in_a_language_that_compiles(tmp_path, language, reads):
    assert list(map(int, reads(times_by_language()[language], tmp_path))) == list(MILLISECONDS.values())


def bytes_in(framework):
    """The page's expression for the bytes of a body in a framework."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {framework} |")]
    return cells(line)[1].strip("`")


def django_gets(expression, body):
    """Read a body in a Django view, in a process of its own: Django is configured once in a process."""
    pytest.importorskip("django", reason="there is no Django")
    script = (
        "from ast import literal_eval; from django.conf import settings; settings.configure()\n"
        "from django.test import RequestFactory\n"
        "request = RequestFactory().post('/', literal_eval(input()), content_type='application/xml')\n"
        f"print({expression})"
    )
    return literal_eval(output_of(sys.executable, "-c", script, given=repr(body)))


def flask_gets(expression, body):
    """Read a body in a Flask view."""
    flask = pytest.importorskip("flask", reason="there is no Flask")
    app, got = flask.Flask("receiver"), []

    @app.post("/")
    def view():
        got.append(eval(expression, {"request": flask.request}))
        return ""

    app.test_client().post("/", data=body, content_type="application/xml; charset=utf-8")
    return got[0]


def fastapi_gets(expression, body):
    """Read a body in a FastAPI view."""
    fastapi = pytest.importorskip("fastapi", reason="there is no FastAPI")
    client = pytest.importorskip("starlette.testclient", reason="there is no httpx")
    app, got = fastapi.FastAPI(), []

    async def view(request):
        namespace = {}
        exec(f"async def read(request):\n    return {expression}", namespace)
        got.append(await namespace["read"](request))

    view.__annotations__["request"] = fastapi.Request
    app.post("/")(view)
    with client.TestClient(app) as posting:
        posting.post("/", content=body, headers={"Content-Type": "application/xml; charset=utf-8"})
    return got[0]


@pytest.mark.parametrize(
    ("framework", "gets"), [("Django", django_gets), ("Flask", flask_gets), ("FastAPI", fastapi_gets)]
)
def test_a_framework_gives_the_bytes_as_they_came(framework, gets):
    body = b"\xef\xbb\xbf<a>\r\n caf\xe9 \x00</a>\n"
    assert gets(bytes_in(framework), body) == body


# -- answers, order and the connection -------------------------------------------------------------


def test_the_figures_of_the_page_are_the_settings():
    settings = Settings()
    assert f"**Status 200**, within {settings.answer_timeout_s:g} seconds" in PAGE
    assert f"| {settings.connect_timeout_s:g} seconds, for DNS, TCP and TLS together |" in PAGE
    words = f"again {settings.retry_countdown_s / 60:g} minutes after each failure, at most {settings.max_resends} times"
    assert f"{words}: {settings.max_resends + 1} POSTs in all" in " ".join(PAGE.split())
    lost_after = settings.retry_countdown_s * settings.max_resends / 60
    assert f"mended within {lost_after:g} minutes" in PAGE
    assert f"usually for {settings.retention_dead_s / 86_400:g} days" in PAGE
    assert f"at most {settings.lane_max_transfers} POSTs open at a time for each group" in PAGE
    assert f"the first {settings.excerpt_bytes} bytes of the body are kept" in " ".join(PAGE.split())
    assert f"| {MAX_IDLE_S} seconds after its last POST" in PAGE
    assert settings.allowed_ports == ((80, 80), (443, 443), (1024, 65_535))
    assert "port 80, 443 or from 1024 on" in PAGE


def test_a_failure_is_sent_again_after_the_countdown_whatever_the_status_and_retry_after_say(rig):
    statuses = (201, 204, 302, 401, 410, 429, 503)
    answer = lambda received: Answer(int(received.path[1:]), b"", {"Retry-After": "1", "Location": "/200"})  # noqa: E731
    with Receiver(answer) as receiver:
        for status in statuses:
            set_account(f"acme{status}", url=receiver.url(f"/{status}"))
            send_postback.delay(f"acme{status}", EVENT)
        rig.tick()
        assert rig.deliver() == len(statuses)
        rig.advance(rig.settings.retry_countdown_s - 5)
        rig.tick()
        assert rig.deliver() == 0
        rig.advance(10)
        rig.tick()
        assert rig.deliver() == len(statuses)
        assert {received.attempt for received in receiver.received[len(statuses) :]} == {2}
    assert {received.path for received in receiver.received} == {f"/{status}" for status in statuses}


def test_an_account_has_one_count_over_all_its_groups_and_urls(rig):
    origins = [("SUB", "N301"), ("SMS_MO", "N211"), ("SMS_MT", "N201"), ("GENERATE_PASS", "N801")] * 2
    with Receiver() as receiver:
        set_account("acme", url=receiver.url("/a"), mo_url=receiver.url("/b"), pass_url=receiver.url("/c"))
        for row in origins:
            send_postback.delay("acme", examples()[row])
        rig.tick()
        rig.deliver()
        in_order = sorted(receiver.received, key=lambda received: received.sequence)
    assert len({received.sequence for received in in_order}) == len(origins)
    assert [(received.tags["ORIGIN"], received.tags["CODE"]) for received in in_order] == origins
    assert {received.path for received in in_order} == {"/a", "/b", "/c"}


def test_a_post_is_plain_http_1_1_with_a_length_and_expects_nothing_even_if_it_is_large(rig):
    """Recorded as bytes, since a server might hide what it does not like."""
    heads = []

    def serve(listener):
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(20)
            for _ in range(2):
                data = b""
                while not data.endswith(b"</POSTBACK>"):
                    data += connection.recv(65_536)
                heads.append(data.partition(b"\r\n\r\n")[0].decode("latin-1"))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        set_account("acme", url=f"http://us%40er:p%3Aass@127.0.0.1:{listener.getsockname()[1]}/in?a=1")
        for event in (MO, LARGEST):
            send_postback.delay("acme", event)
            rig.tick()
            rig.deliver()
        server.join(60)
    assert len(heads) == 2
    for head in heads:
        request_line, *lines = head.split("\r\n")
        names = {line.partition(":")[0].lower() for line in lines}
        assert request_line == "POST /in?a=1 HTTP/1.1"
        assert "content-length" in names
        assert not names & {
            "expect",
            "transfer-encoding",
            "content-encoding",
            "accept-encoding",
            "cookie",
            "upgrade",
        }
        pair = base64.b64encode(b"us@er:p:ass").decode()
        assert f"Authorization: Basic {pair}" in lines
    length = int(re.search(r"Content-Length: (\d+)", heads[1])[1])
    assert length > 1_200_000  # from 1 MiB on libcurl would ask first
