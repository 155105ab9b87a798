"""A server of names for the cluster of the tests: `<service>.<namespace>.svc.cluster.local`, asked of the API server.

usage: names.py ADDRESS
"""

import json
import socket
import struct
import subprocess
import sys
import time

ZONE = ".svc.cluster.local"
A, IN = 1, 1


class Services:
    """The addresses of the Services, at most a second old."""

    def __init__(self):
        self.addresses, self.asked = {}, 0.0

    def address(self, name: str) -> str | None:
        if time.monotonic() - self.asked > 1:
            listed = subprocess.run(["kubectl", "get", "services", "--all-namespaces", "--output", "json"],
                                    capture_output=True, text=True, check=True)
            self.addresses = {
                f"{item['metadata']['name']}.{item['metadata']['namespace']}{ZONE}": item["spec"]["clusterIP"]
                for item in json.loads(listed.stdout)["items"]}
            self.asked = time.monotonic()
        return self.addresses.get(name)


def answer(query: bytes, services: Services) -> bytes:
    """RFC 1035: the question again, and where it was for the address of a Service, that."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1:at + 1 + length].decode())
        at += 1 + length
    question = query[12:at + 5]
    kind, _ = struct.unpack(">HH", query[at + 1:at + 5])
    address = services.address(".".join(labels).lower())
    records = b""
    if address and kind == A:
        # 0xc00c: the name of the question.
        records = struct.pack(">HHHIH", 0xC00C, A, IN, 5, 4) + socket.inet_aton(address)
    # An answer, with authority; 3: there is no such name.
    flags = 0x8580 | (0 if address else 3)
    return query[:2] + struct.pack(">HHHHH", flags, 1, int(bool(records)), 0, 0) + question + records


def main(address: str) -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    services = Services()
    while True:
        query, client = server.recvfrom(512)
        server.sendto(answer(query, services), client)


main(sys.argv[1])
