"""Shakes hands where TLS comes first, says EHLO, and does what no honest client does until the server ends it.

usage: abuse.py PORT key_updates|key_updates_in_a_row|empty_records|renegotiation TIMES

Prints "ended" when the server closed the connection, and the alert before it if there was one, else "served".
"""

import socket
import sys

from tlslite.api import HandshakeSettings, TLSConnection
from tlslite.constants import AlertDescription, CipherSuite, ContentType
from tlslite.errors import TLSAbruptCloseError, TLSRemoteAlert
from tlslite.messages import ClientHello, Message

DEADLINE = 30
UPDATE_REQUESTED = 1


def connect(port, version):
    settings = HandshakeSettings()
    settings.minVersion = settings.maxVersion = version
    tls = TLSConnection(socket.create_connection(("127.0.0.1", port), DEADLINE))
    tls.handshakeClientCert(settings=settings)
    read_reply(tls)
    tls.sendall(b"EHLO client.example.org\r\n")
    read_reply(tls)
    return tls


def read_reply(tls):
    received = b""
    while not received.endswith(b"\r\n"):
        received += tls.recv(4096)


def record(content_type, octets=b""):
    return Message(content_type, bytearray(octets))


def send_all(steps):
    for _ in steps:
        pass


def abuse(tls, kind):
    if kind.startswith("key_updates"):
        send_all(tls.send_keyupdate_request(UPDATE_REQUESTED))
    if kind == "key_updates":
        # A command, octet by octet, that never ends.
        tls.sendall(b" ")
    if kind == "empty_records":
        send_all(tls._recordLayer.sendRecord(record(ContentType.application_data)))
    if kind == "renegotiation":
        suites = [CipherSuite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]
        hello = ClientHello().create((3, 3), bytearray(32), bytearray(), suites)
        send_all(tls._recordLayer.sendRecord(record(ContentType.handshake, hello.write())))


def ending(tls):
    """What the server says last, and whether it closes."""
    try:
        while tls.recv(4096):
            pass
        return "ended"
    except TLSRemoteAlert as alert:
        return "ended " + AlertDescription.toStr(alert.description)
    except (TLSAbruptCloseError, ConnectionError):
        return "ended"
    except TimeoutError:
        return "served"


def main(port, kind, times):
    tls = connect(port, (3, 3) if kind == "renegotiation" else (3, 4))
    try:
        for _ in range(times):
            abuse(tls, kind)
        tls.sendall(b"\r\nQUIT\r\n")
    except (BrokenPipeError, ConnectionResetError):
        pass
    print(ending(tls))


main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
