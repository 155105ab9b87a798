"""Clients on all four transports, and a publisher: every message is expected once, in order, by each of them.

None of this is Tidegate's own code: httpx and websockets, which come back with their position as docs/subscribing.md says.
"""

import asyncio
import json
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx
import websockets

TRANSPORTS = ("websocket", "sse", "ndjson", "poll")


@dataclass
class Target:
    """Where the gateways are, and what opens them."""
    public: str
    internal: str
    key: str
    token: str

    def subscriber(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass
class Client:
    """Follows one channel over one transport, for as long as it is let."""
    target: Target
    transport: str
    channel: str
    numbers: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    gaps: int = 0
    connects: int = 0
    since: str = "latest"
    wait: float = 0.2
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        while True:
            self.wait = 0.2
            try:
                await getattr(self, self.transport)()
            except (httpx.HTTPError, websockets.WebSocketException, OSError):
                pass
            await asyncio.sleep(self.wait)

    def url(self, scheme: str = "http") -> str:
        public = self.target.public.replace("http", scheme, 1)
        return f"{public}/v1/subscribe?channel={self.channel}&transport={self.transport}&since={quote(self.since)}"

    def take(self, item: dict) -> None:
        """An object of the stream."""
        match item["type"]:
            case "subscribed":
                self.since = item["position"]
                self.connects += 1
                self.ready.set()
            case "message":
                self.since = item["id"]
                self.numbers.append(item["data"]["number"])
                self.seconds.append(time.time() - item["data"]["at"])
            case "gap":
                self.gaps += 1
            case "goodbye":
                self.wait = (item["reconnect_after_ms"] or 0) / 1000

    async def websocket(self) -> None:
        async with websockets.connect(self.url("ws"), additional_headers=self.target.subscriber(), proxy=None) as socket:
            async for frame in socket:
                self.take(json.loads(frame))

    async def lines(self):
        timeout = httpx.Timeout(10, read=60)
        async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
            async with client.stream("GET", self.url(), headers=self.target.subscriber()) as answer:
                if answer.status_code != 200:
                    self.wait = float(answer.headers.get("Retry-After", 1))
                    return
                async for line in answer.aiter_lines():
                    yield line

    async def ndjson(self) -> None:
        async for line in self.lines():
            self.take(json.loads(line))

    async def sse(self) -> None:
        async for line in self.lines():
            if line.startswith("data:"):
                self.take(json.loads(line.removeprefix("data:")))
            elif line.startswith("retry:"):
                self.wait = int(line.removeprefix("retry:")) / 1000

    async def poll(self) -> None:
        """Until the connection ends, or it is told to: httpx keeps it open from one poll to the next."""
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            self.connects += 1
            while True:
                # The first answer comes at once, for its cursor.
                wait = 0 if self.since == "latest" else 25
                answer = await client.get(f"{self.url()}&wait={wait}", headers=self.target.subscriber())
                if answer.status_code != 200:
                    self.wait = float(answer.headers.get("Retry-After", 1))
                    return
                document = answer.json()
                for item in document["gaps"] + document["messages"]:
                    self.take(item)
                self.since = document["cursor"]
                self.ready.set()
                if answer.headers.get("Connection") == "close":
                    return


class Load:
    """Publishes at a steady rate to some channels until it is told to stop, while clients follow each on each transport."""

    def __init__(self, target: Target, clients: int, channels: int, rate: float):
        self.target, self.rate = target, rate
        # Channels of its own: what others published is none of its numbers.
        run = uuid.uuid4().hex[:8]
        self.channels = [f"load:{run}.{number}" for number in range(channels)]
        self.clients = [Client(target, transport, self.channels[number % channels])
                        for transport in TRANSPORTS for number in range(clients)]
        self.published: Counter[str] = Counter()
        self.refused: list[str] = []
        self.stopping = asyncio.Event()

    async def publish(self) -> None:
        headers = {"Authorization": f"Bearer {self.target.key}"}
        async with httpx.AsyncClient(trust_env=False, timeout=10, headers=headers) as client:
            start, sent = time.monotonic(), 0
            while not self.stopping.is_set():
                channel = self.channels[sent % len(self.channels)]
                body = {"number": self.published[channel] + 1, "at": time.time()}
                url = f"{self.target.internal}/v1/channels/{channel}/messages"
                try:
                    answer = await client.post(url, json=body)
                    told = f"{answer.status_code} {answer.text}" if answer.status_code != 202 else ""
                except httpx.HTTPError as error:
                    told = repr(error)
                if told:
                    self.refused.append(told)
                else:
                    self.published[channel] += 1
                sent += 1
                await asyncio.sleep(max(0, start + sent / self.rate - time.monotonic()))

    async def __aenter__(self) -> "Load":
        self.following = [asyncio.create_task(client.follow()) for client in self.clients]
        await asyncio.wait_for(asyncio.gather(*(client.ready.wait() for client in self.clients)), 30)
        self.started = time.monotonic()
        self.publishing = asyncio.create_task(self.publish())
        return self

    async def __aexit__(self, failed, *_) -> None:
        self.stopping.set()
        await self.publishing
        self.ended = time.monotonic()
        deadline = self.ended + 30
        while not failed and time.monotonic() < deadline:
            if all(len(client.numbers) >= self.published[client.channel] for client in self.clients):
                break
            await asyncio.sleep(0.1)
        for task in self.following:
            task.cancel()
        await asyncio.gather(*self.following, return_exceptions=True)

    def figures(self) -> dict[str, str]:
        """What happened; fails where the promise was not kept."""
        assert not self.refused, f"{len(self.refused)} publishes were refused, first: {self.refused[0]}"
        lost = doubled = 0
        for client in self.clients:
            wanted = self.published[client.channel]
            lost += len(set(range(1, wanted + 1)) - set(client.numbers))
            doubled += len(client.numbers) - len(set(client.numbers))
            assert client.numbers == sorted(client.numbers), f"{client.transport}: out of order"
            assert client.gaps == 0, f"{client.transport}: {client.gaps} gaps"
        assert (lost, doubled) == (0, 0), f"{lost} lost, {doubled} doubled"
        seconds = sorted(second for client in self.clients for second in client.seconds)
        again = Counter()
        for client in self.clients:
            again[client.transport] += client.connects - 1
        published = sum(self.published.values())
        return {
            "messages published": f"{published:,} in {self.ended - self.started:.0f} s, 0 refused",
            "messages received": f"{len(seconds):,} by {len(self.clients)} clients, 0 lost, 0 doubled, 0 gaps",
            "clients that came back": ", ".join(f"{transport} {again[transport]}" for transport in TRANSPORTS),
            "publish to receive": f"median {1000 * seconds[len(seconds) // 2]:.1f} ms, 99 % within "
                                  f"{1000 * seconds[len(seconds) * 99 // 100]:.0f} ms, longest {seconds[-1]:.2f} s",
        }
