"""Sends a file as one message under TLS of one version, and decides itself how its octets are cut into segments.

usage: send.py starttls|implicit PORT 1.2|1.3 new|resumed OCTETS FILE

OCTETS: so many in each segment, from the first one of the ClientHello on.
"""

import pathlib
import socket
import ssl
import sys

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Session:
    def __init__(self, tls, port, context, octets, session=None):
        self.octets = octets
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls == "starttls":
            replies = self.socket.makefile("rb")
            expect(replies.readline, "220 ")
            self.socket.sendall(b"STARTTLS\r\n")
            expect(replies.readline, "220 ")
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, session=session)
        self.received = b""
        self.pump(self.tls.do_handshake)
        if tls == "implicit":
            expect(self.readline, "220 ")
        self.command("EHLO client.test", "250")

    def pump(self, call, *arguments):
        """Calls until there is no octet missing, which it waits for."""
        while True:
            try:
                result = call(*arguments)
            except ssl.SSLWantReadError:
                self.flush()
                received = self.socket.recv(1 << 16)
                if not received:
                    sys.exit("the daemon hung up")
                self.incoming.write(received)
            else:
                self.flush()
                return result

    def flush(self):
        sealed = self.outgoing.read()
        for at in range(0, len(sealed), self.octets):
            self.socket.sendall(sealed[at : at + self.octets])

    def readline(self):
        while b"\n" not in self.received:
            received = self.pump(self.tls.read)
            if not received:
                sys.exit("the daemon closed")
            self.received += received
        line, self.received = self.received.split(b"\n", 1)
        return line

    def command(self, line, prefix):
        self.send(line.encode() + b"\r\n", prefix)

    def send(self, octets, prefix):
        while octets:
            octets = octets[self.pump(self.tls.write, octets) :]
        expect(self.readline, prefix)

    def quit(self):
        self.command("QUIT", "221")
        self.socket.close()
        return self.tls.session


def expect(readline, prefix):
    """Reads one reply, continuation lines included."""
    while True:
        line = readline().decode()
        if not line.startswith(prefix):
            sys.exit(f"expected {prefix}, got {line!r}")
        if line[3] != "-":
            return


def main():
    tls, port, version, kind, octets, file = sys.argv[1:]
    # The certificate is self-signed, as it is between mail servers (RFC 7435).
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = VERSIONS[version]
    arguments = tls, int(port), context, int(octets)
    known = Session(*arguments).quit() if kind == "resumed" else None
    session = Session(*arguments, known)
    if session.tls.session_reused != (kind == "resumed"):
        sys.exit(f"resumed: {session.tls.session_reused}")
    session.command("MAIL FROM:<sender@example.org>", "250")
    session.command("RCPT TO:<user@example.net>", "250")
    session.command("DATA", "354")
    lines = pathlib.Path(file).read_bytes().split(b"\n")
    wire = b"\n".join(b"." + line if line.startswith(b".") else line for line in lines)
    session.send(wire + b".\r\n", "250")
    session.quit()


main()
