"""curl, as a person would call it."""

import json
import subprocess

import pytest


def curl(*arguments: str, **options) -> subprocess.CompletedProcess:
    """curl to its end."""
    return subprocess.run(["curl", "--silent", "--show-error", "--max-time", "20", *arguments],
                          capture_output=True, text=True, check=False, timeout=40, **options)


def follow(gateway, channel: str, *arguments: str) -> subprocess.Popen:
    """`curl -N`, already subscribed."""
    process = subprocess.Popen(["curl", "--silent", "-N", "--max-time", "20", *arguments], stdout=subprocess.PIPE, text=True)
    gateway.until_subscribers(channel, 1)
    return process


@pytest.mark.parametrize("flags", [[], ["--http1.0"], ["--http2-prior-knowledge"], ["--compressed"]], ids=" ".join)
def test_curl_follows_an_event_stream(gateway, flags):
    channel = "curl.sse" + "".join(flags).replace("-", "")
    process = follow(gateway, channel, *flags, "-H", "Accept: text/event-stream", f"{gateway.url}/v1/subscribe?channel={channel}")
    receipt = gateway.publish(channel, {"hello": "curl"})
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if "hello" in line:
            break
    process.kill()
    process.wait()
    assert lines[0].startswith("retry:")
    assert any(line == f"id: {receipt['id']}" for line in lines), lines


@pytest.mark.parametrize("flags", [[], ["--http1.0"], ["--http2-prior-knowledge"]], ids=" ".join)
def test_curl_follows_ndjson(gateway, flags):
    channel = "curl.lines" + "".join(flags).replace("-", "")
    process = follow(gateway, channel, *flags, f"{gateway.url}/v1/subscribe?channel={channel}&transport=ndjson")
    assert json.loads(process.stdout.readline())["type"] == "subscribed"
    for number in range(10):
        gateway.publish(channel, number)
    assert [json.loads(process.stdout.readline())["data"] for _ in range(10)] == list(range(10))
    process.kill()
    process.wait()


def test_curl_publishes_what_it_is_given(gateway):
    url = f"{gateway.internal}/v1/channels/curl.publish/messages"
    assert json.loads(curl("-d", "hello", url).stdout)["channel"] == "curl.publish"
    curl("-d", '{"a": 1}', url)
    curl("-H", "Content-Type: text/plain", "-d", '{"a": 1}', url)
    curl("--json", '{"a": 2}', url)
    curl("--data-binary", "@-", "-H", "Content-Type: application/octet-stream", url, input="bytes")
    document = json.loads(curl(url).stdout)
    assert [message.get("data", message.get("data_base64")) for message in document["messages"]] == ["hello", {"a": 1}, '{"a": 1}', {"a": 2}, "Ynl0ZXM="]


def test_curl_polls(gateway):
    gateway.publish("curl.poll", 1)
    document = json.loads(curl(f"{gateway.url}/v1/subscribe?channel=curl.poll&since=earliest").stdout)
    assert document["messages"][0]["data"] == 1
    document = json.loads(curl(f"{gateway.url}/v1/subscribe?channel=curl.poll&wait=1").stdout)
    assert document["messages"] == []


@pytest.mark.parametrize("flags", [[], ["-H", "Expect:"], ["--http2-prior-knowledge"], ["-H", "Transfer-Encoding: chunked"]], ids=" ".join)
def test_curl_reads_the_refusal_of_a_large_body(gateway, flags, tmp_path):
    large = tmp_path / "large"
    large.write_bytes(b"x" * 1_000_000)
    done = curl(*flags, "-H", "Content-Type: text/plain", "--data-binary", f"@{large}", f"{gateway.internal}/v1/channels/curl.large/messages")
    assert json.loads(done.stdout)["code"] == "message_too_large", done.stderr


def test_curl_sees_status_and_headers(gateway):
    assert "405" in curl("-I", f"{gateway.url}/v1/subscribe?channel=a").stdout.splitlines()[0]
    assert "200" in curl("-I", f"{gateway.internal}/metrics").stdout.splitlines()[0]
    assert curl("-o", "/dev/null", "-w", "%{http_code}", "-X", "DELETE", f"{gateway.internal}/v1/channels/curl.none/messages").stdout == "204"
    assert curl("-o", "/dev/null", "-w", "%{http_code}", "-X", "OPTIONS", f"{gateway.url}/v1/subscribe").stdout == "204"
    refused = curl("-H", "Origin: https://evil.example", f"{gateway.url}/v1/subscribe?channel=a")
    assert json.loads(refused.stdout)["code"] == "origin_refused"
