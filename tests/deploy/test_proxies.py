"""Every transport through each proxy, with the configuration that deploy/ ships."""

import contextlib
import json
import subprocess
import threading

import httpx
import pytest
import websockets
from conftest import BINARY, PATIENCE, PROXIES, TRANSPORTS, Topology, eventually, get, name
from websockets.sync.client import connect

each_proxy = pytest.mark.parametrize("proxy", PROXIES)
each_transport = pytest.mark.parametrize("transport", TRANSPORTS)


def long_names() -> list[str]:
    """As many and as long as the gateway takes: a URL of 27 KB."""
    return [name("long.").ljust(200, "x") for _ in range(128)]


def query(channels: list[str], **parameters: str) -> str:
    return str(httpx.QueryParams([("channel", channel) for channel in channels] + list(parameters.items())))


def objects(lines):
    """The objects of an event stream or of NDJSON."""
    for line in lines:
        line = line.removeprefix("data: ")
        if line.startswith("{"):
            yield json.loads(line)


class Following(contextlib.ExitStack):
    """A client on one transport that says its origin, as a browser does."""

    def __init__(self, url: str, transport: str, channels: list[str], since: str = ""):
        super().__init__()
        self.url, self.channels, self.cursor = url, channels, since
        query_string = query(channels, transport=transport, **({"since": since} if since else {}))
        address = f"{url}/v1/subscribe?{query_string}"
        if transport == "websocket":
            socket = self.enter_context(connect(address.replace("http", "ws", 1), origin=url))
            self.next = lambda: json.loads(socket.recv(timeout=PATIENCE))
        else:
            self.client = self.enter_context(httpx.Client(headers={"Origin": url}, timeout=PATIENCE))
            if transport == "poll":
                self.waiting = []
                self.poll(wait="0")
                self.next = self.polled
            else:
                answer = self.enter_context(self.client.stream("GET", address))
                assert answer.status_code == 200, answer.read()
                found = objects(answer.iter_lines())
                self.next = lambda: next(found)

    def poll(self, wait: str) -> None:
        since = {"since": self.cursor} if self.cursor else {}
        answer = self.client.get(f"{self.url}/v1/subscribe?{query(self.channels, transport='poll', wait=wait, **since)}")
        assert answer.status_code == 200, answer.text
        document = answer.json()
        assert document["gaps"] == []
        self.waiting += document["messages"]
        self.cursor = document["cursor"]

    def polled(self) -> dict:
        while not self.waiting:
            self.poll(wait="25")
        return self.waiting.pop(0)

    def message(self) -> dict:
        """The next message; a gap is none that we want."""
        while (found := self.next())["type"] != "message":
            assert found["type"] in ("subscribed", "heartbeat"), found
        return found


@each_proxy
@each_transport
def test_a_message_arrives_when_it_is_published(topology: Topology, proxy, transport):
    channel = name("live")
    with Following(topology.proxies[proxy], transport, [channel]) as client:
        # The next is published only once the last is here: a proxy that waits for more would wait for ever.
        for number in range(5):
            published = threading.Thread(target=topology.publish, args=(channel, number))
            published.start()
            assert client.message()["data"] == number
            published.join()


@each_proxy
@each_transport
def test_a_position_resumes_through_the_proxy_wherever_it_was_left(topology: Topology, proxy, transport):
    channel = name("position")
    ids = topology.publish(channel, *range(10))
    for number in range(2):
        with Following(topology.proxies[proxy], transport, [channel], since=ids[3 + number]) as client:
            assert [client.message()["data"] for _ in range(6 - number)] == list(range(4 + number, 10))


@each_proxy
@each_transport
def test_as_many_channels_as_there_may_be_make_a_long_url(topology: Topology, proxy, transport):
    channels = long_names()
    assert len(query(channels)) > 26_000
    with Following(topology.proxies[proxy], transport, channels) as client:
        for channel in (channels[0], channels[127]):
            published = threading.Thread(target=topology.publish, args=(channel, channel[:20]))
            published.start()
            assert client.message()["channel"] == channel
            published.join()


@each_proxy
def test_a_client_talks_back_through_the_proxy(topology: Topology, proxy):
    channel = name("talk")
    url = topology.proxies[proxy]
    with connect(f"{url.replace('http', 'ws', 1)}/v1/subscribe?channel={channel}&format=raw", origin=url) as socket:
        socket.send("Hello Server!")
        assert socket.recv(timeout=PATIENCE) == "Hello Server!"


@each_proxy
@pytest.mark.parametrize("path", ["/client.js", "/client.d.ts"])
def test_the_client_for_browsers_is_to_be_had(topology: Topology, proxy, path):
    status, body = get(topology.proxies[proxy] + path)[:2]
    assert status == 200 and "export class Tidegate" in body


@each_proxy
@pytest.mark.parametrize("path", ["/metrics", "/v1/channels/a", "/v1/channels", "/openapi.yaml", "/", "/v1/subscribe/"])
def test_nothing_else_is_to_be_had(topology: Topology, proxy, path):
    assert get(topology.proxies[proxy] + path)[0] == 404


@each_proxy
@pytest.mark.parametrize("transport", ["websocket", "sse", "ndjson"])
def test_both_gateways_are_used_and_a_client_that_has_gone_is_gone_there_too(topology: Topology, proxy, transport):
    def connections() -> list[float]:
        return [topology.metric("tidegate_connections", number) for number in (1, 2)]

    eventually("nobody is there", lambda: connections() == [0, 0])
    channel = name("both")
    with contextlib.ExitStack() as clients:
        for _ in range(4):
            clients.enter_context(Following(topology.proxies[proxy], transport, [channel]))
        assert min(connections()) > 0
    # Well before the next heartbeat would find out.
    eventually("they are gone", lambda: connections() == [0, 0], 15)


@each_proxy
def test_a_client_is_known_by_its_own_address_and_by_no_other_that_it_names(topology: Topology, proxy):
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(transport=transport, headers={"X-Forwarded-For": "203.0.113.9"}, timeout=PATIENCE) as client:
        address = f"{topology.proxies[proxy]}/v1/subscribe?channel={name('address')}&transport=sse"
        with client.stream("GET", address) as answer:
            connection = answer.headers["tidegate-connection"]

    def told() -> str | None:
        logs = [gateway.log.read_text() for gateway in topology.gateways.values()]
        lines = [line for log in logs for line in log.splitlines() if connection in line and "a client connected" in line]
        return lines[0] if lines else None
    line = eventually("it is in a log", told)
    assert "127.0.0.2" in line and "203.0.113.9" not in line


# What goes wrong with a proxy as it comes


def without(*words: str):
    """The configuration less the lines that hold a word."""
    def change(text: str) -> str:
        lines = text.splitlines()
        kept = [line for line in lines if line.lstrip().startswith("#") or not any(word in line for word in words)]
        assert len(kept) == len(lines) - len(words), f"{words} are not one line each"
        return "\n".join(kept) + "\n"
    return change


def test_with_the_host_that_nginx_sends_by_default_the_answer_names_the_cure(topology: Topology):
    # `location /ready` has such a line too, and is exempt from the rule.
    url = topology.proxy("nginx", lambda text: text.replace("proxy_set_header Host $http_host;", "", 1))
    address = f"{url}/v1/subscribe?channel=a&transport=sse"
    refused = httpx.get(address, headers={"Origin": "https://app.example.com"})
    assert refused.status_code == 403 and refused.json()["code"] == "origin_refused"
    detail = refused.json()["detail"]
    assert "tidegate" in detail and "https://app.example.com" in detail
    assert "proxy_set_header Host $host" in detail
    with pytest.raises(websockets.InvalidStatus) as status:
        connect(address.replace("http", "ws", 1).replace("&transport=sse", ""), origin=url)
    assert status.value.response.status_code == 403


@pytest.mark.parametrize(("proxy", "setting", "status"), [
    ("nginx", "large_client_header_buffers", 414), ("haproxy", "tune.bufsize", 400)])
def test_without_its_setting_a_proxy_refuses_a_long_url_in_its_own_words(topology: Topology, proxy, setting, status):
    url = topology.proxy(proxy, without(setting))
    refused = httpx.get(f"{url}/v1/subscribe?{query(long_names(), transport='sse')}")
    assert refused.status_code == status
    assert refused.headers["content-type"].startswith("text/html")
    # Short ones pass, so that it is found late.
    with Following(url, "sse", [name("short")]) as client:
        assert client.next()["type"] == "subscribed"


# A restart of one gateway after the other


class Follower:
    """`tidegate subscribe`, which comes back by itself."""

    def __init__(self, topology: Topology, proxy: str, transport: str, channel: str):
        self.name = f"{transport} through {proxy}"
        command = [BINARY, "subscribe", channel, "--transport", transport, "--url", topology.proxies[proxy],
                   "--since", "earliest", "--format", "raw"]
        self.said, self.told = topology.folder / f"{self.name}.out", topology.folder / f"{self.name}.err"
        with open(self.said, "wb") as out, open(self.told, "wb") as err:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)

    def numbers(self) -> list[int]:
        assert self.process.poll() is None, f"{self.name} ended: {self.told.read_text()}"
        text = self.said.read_text()
        return [int(line) for line in text[:text.rfind("\n") + 1].split()]

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)


def test_nothing_is_lost_or_doubled_while_one_gateway_after_the_other_is_restarted(topology: Topology):
    channel = name("rolling")
    published = 0

    def publish(count: int, number: int) -> None:
        nonlocal published
        for _ in range(count):
            topology.publish(channel, published, number=number)
            published += 1

    followers = [Follower(topology, proxy, transport, channel) for proxy in PROXIES for transport in TRANSPORTS]

    def all_have_all() -> bool:
        return all(len(follower.numbers()) >= published for follower in followers)

    try:
        publish(20, 1)
        eventually("they follow", all_have_all)
        for number, other in ((1, 2), (2, 1)):
            gateway = topology.gateways[f"gateway-{number}"]
            assert topology.metric("tidegate_connections", number) > 0, "nobody is there to be sent away"
            codes: list[int] = []
            stopping = threading.Thread(target=lambda: codes.append(gateway.stop()))
            stopping.start()
            while stopping.is_alive():
                publish(5, other)
                stopping.join(0.05)
            assert codes == [0]
            publish(20, other)
            eventually("they follow the other gateway", all_have_all)
            gateway.start()
            gateway.until("is ready", lambda: get(f"{topology.at(f'gateway-{number}:8000')}/ready")[0] == 200)
            # The proxies take it back before the other one goes.
            eventually("it has clients", lambda: connected(topology, number))
        for follower in followers:
            assert follower.numbers() == list(range(published)), f"{follower.name}: {follower.told.read_text()}"
            assert "gap" not in follower.told.read_text(), follower.name
    finally:
        for follower in followers:
            follower.end()


def connected(topology: Topology, number: int) -> bool:
    """Whether each proxy sends newcomers to this gateway again."""
    for proxy in PROXIES:
        before = topology.metric("tidegate_connections_opened_total", number)
        for _ in range(4):
            with Following(topology.proxies[proxy], "sse", [name("again")]):
                pass
        if topology.metric("tidegate_connections_opened_total", number) == before:
            return False
    return True
