"""The Python packages `websockets` and `httpx`."""

import asyncio
import json
import threading

import httpx
import pytest
import websockets
from websockets.sync.client import connect

from conftest import Gateway


def test_websockets_receives_in_order(gateway):
    with connect(f"{gateway.socket}/v1/subscribe?channel=py.ws") as socket:
        assert json.loads(socket.recv(timeout=10))["type"] == "subscribed"
        for number in range(50):
            gateway.publish("py.ws", number)
        assert [json.loads(socket.recv(timeout=10))["data"] for _ in range(50)] == list(range(50))


def test_websockets_is_answered_by_reference(gateway):
    with connect(f"{gateway.socket}/v1/subscribe") as socket:
        for number, command in enumerate(({"type": "subscribe", "channel": "py.cmd"}, {"type": "ping"}, {"type": "dance"})):
            socket.send(json.dumps(command | {"ref": number}))
        answers = [json.loads(socket.recv(timeout=10)) for _ in range(3)]
        assert [(answer["type"], answer["ref"]) for answer in answers] == [("subscribed", 0), ("pong", 1), ("error", 2)]


def test_websockets_speaks_raw_both_ways(gateway):
    with connect(f"{gateway.socket}/v1/subscribe?channel=py.raw&format=raw") as socket:
        socket.send("Hello Server!")
        assert socket.recv(timeout=10) == "Hello Server!"
        socket.send(b"\x00\xff")
        assert socket.recv(timeout=10) == b"\x00\xff"
        socket.send(["in ", "three ", "fragments"])
        assert socket.recv(timeout=10) == "in three fragments"


def test_websockets_pings_and_closes(gateway):
    with connect(f"{gateway.socket}/v1/subscribe?channel=py.ping") as socket:
        assert socket.ping().wait(10)
    assert socket.close_code == 1000


def test_websockets_sees_the_close_code_and_reason(gateway):
    with connect(f"{gateway.socket}/v1/subscribe?channel=py.close") as socket:
        socket.recv(timeout=10)
        httpx.post(f"{gateway.internal}/v1/disconnect", json={"channel": "py.close"}).raise_for_status()
        with pytest.raises(websockets.ConnectionClosed) as closed:
            while True:
                socket.recv(timeout=10)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4410, "revoked")


def test_websockets_is_refused_by_origin(gateway):
    with pytest.raises(websockets.InvalidStatus) as refused:
        connect(f"{gateway.socket}/v1/subscribe?channel=a", origin="https://evil.example")
    assert refused.value.response.status_code == 403


def test_many_sockets_at_once(gateway):
    async def receive():
        async with websockets.connect(f"{gateway.socket}/v1/subscribe?channel=py.many") as socket:
            await socket.recv()
            return json.loads(await asyncio.wait_for(socket.recv(), 20))["data"]

    async def all_of_them():
        waiting = [asyncio.create_task(receive()) for _ in range(100)]
        await asyncio.to_thread(gateway.until_subscribers, "py.many", 100)
        await asyncio.to_thread(gateway.publish, "py.many", "to all")
        return await asyncio.gather(*waiting)

    assert asyncio.run(all_of_them()) == ["to all"] * 100


def sse_events(lines):
    """Events of a stream of lines."""
    event = {}
    for line in lines:
        if line == "":
            if "data" in event:
                yield event
            event = {}
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            event[field] = value.removeprefix(" ")


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_httpx_reads_an_event_stream(gateway, version):
    channel = f"py.sse{version}"
    with httpx.Client(http1=version == "1.1", http2=version == "2", timeout=10) as client:
        with client.stream("GET", f"{gateway.url}/v1/subscribe?channel={channel}", headers={"Accept": "text/event-stream"}) as answer:
            assert (answer.status_code, answer.http_version) == (200, f"HTTP/{version}")
            events = sse_events(answer.iter_lines())
            assert next(events)["event"] == "tidegate.subscribed"
            receipts = [gateway.publish(channel, number) for number in range(20)]
            for number, receipt in enumerate(receipts):
                event = next(events)
                assert (json.loads(event["data"])["data"], event["id"]) == (number, receipt["id"])


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_httpx_reads_ndjson(gateway, version):
    channel = f"py.lines{version}"
    with httpx.Client(http1=version == "1.1", http2=version == "2", timeout=10) as client:
        with client.stream("GET", f"{gateway.url}/v1/subscribe?channel={channel}", headers={"Accept": "application/x-ndjson"}) as answer:
            lines = answer.iter_lines()
            assert json.loads(next(lines))["type"] == "subscribed"
            for number in range(20):
                gateway.publish(channel, number)
            assert [json.loads(next(lines))["data"] for _ in range(20)] == list(range(20))


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_httpx_polls_without_loss(gateway, version):
    channel = f"py.poll{version}"

    def publish():
        for number in range(100):
            gateway.publish(channel, number)

    with httpx.Client(http1=version == "1.1", http2=version == "2", timeout=60) as client:
        cursor = client.get(f"{gateway.url}/v1/subscribe", params={"channel": channel, "wait": 0}).json()["cursor"]
        publisher = threading.Thread(target=publish)
        publisher.start()
        seen = []
        while len(seen) < 100:
            document = client.get(f"{gateway.url}/v1/subscribe", params={"channel": channel, "since": cursor}).json()
            assert document["gaps"] == []
            seen += [message["data"] for message in document["messages"]]
            cursor = document["cursor"]
        publisher.join()
    assert seen == list(range(100))


def test_httpx_publishes_over_http_2(gateway):
    with httpx.Client(http1=False, http2=True, timeout=10) as client:
        url = f"{gateway.internal}/v1/channels/py.publish/messages"
        assert client.post(url, json={"n": 1}).status_code == 202
        assert client.post(url, content=b"x" * 300_000).json()["code"] == "message_too_large"
        assert client.post(url, json={"n": 2}).json()["duplicate"] is False
        batch = {"messages": [{"channels": ["py.publish", ".."], "data": 1}]}
        assert client.post(f"{gateway.internal}/v1/messages", json=batch).status_code == 207
        assert client.get(f"{gateway.internal}/v1/channels/py.publish").json()["messages"] == 3


def test_a_problem_has_its_code(gateway):
    answer = httpx.get(f"{gateway.url}/v1/subscribe", params={"chanel": "a"})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json()["code"] == "unknown_parameter"


def test_clients_survive_a_drain():
    other = Gateway()
    with connect(f"{other.socket}/v1/subscribe?channel=a") as socket:
        socket.recv(timeout=10)
        assert other.stop() == 0
        assert json.loads(socket.recv(timeout=10))["code"] == "shutdown"
        with pytest.raises(websockets.ConnectionClosed) as closed:
            socket.recv(timeout=10)
    assert closed.value.rcvd.code == 1001
