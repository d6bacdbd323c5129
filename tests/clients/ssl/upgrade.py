"""Begins TLS on the connection that it has as standard input, STARTTLS already said, and goes on with it.

usage: upgrade.py close|reset|silence [COMMAND REPLY]...

Each COMMAND must be answered with one REPLY that begins so. Then it closes, resets the connection, or says nothing until
the daemon closes.
"""

import socket
import ssl
import struct
import sys


def main():
    end, *dialogue = sys.argv[1:]
    connection = socket.socket(fileno=sys.stdin.fileno())
    connection.settimeout(60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    tls = context.wrap_socket(connection)
    replies = tls.makefile("rb")
    for command, prefix in zip(dialogue[::2], dialogue[1::2]):
        tls.sendall(command.encode() + b"\r\n")
        while True:
            line = replies.readline().decode()
            if not line.startswith(prefix):
                sys.exit(f"{command}: expected {prefix}, got {line!r}")
            if line[3] != "-":
                break
    if end == "silence":
        rest = replies.read()
        if rest and not rest.startswith(b"421 4.4.2"):
            sys.exit(f"instead of a farewell: {rest!r}")
    if end == "reset":
        tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    replies.close()
    tls.close()


main()
