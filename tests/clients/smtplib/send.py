"""Sends each file named on the command line as one message, all over one connection, with smtplib.

usage: send.py clear|starttls|implicit PORT FILE...
"""

import pathlib
import smtplib
import ssl
import sys


def connect(tls, port):
    # The certificate is self-signed, as it is between mail servers (RFC 7435).
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if tls == "implicit":
        return smtplib.SMTP_SSL("127.0.0.1", port, context=context, timeout=60)
    smtp = smtplib.SMTP("127.0.0.1", port, timeout=60)
    if tls == "starttls":
        smtp.starttls(context=context)
    return smtp


def send(smtp, text):
    smtp.ehlo_or_helo_if_needed()
    expect(smtp.mail("sender@example.org", ["BODY=8BITMIME", f"SIZE={len(text)}"]), 250)
    expect(smtp.rcpt("user@example.net"), 250)
    if text:
        expect(smtp.data(text), 250)
    else:
        # smtplib.data() puts an empty line where there is no text at all.
        expect(smtp.docmd("DATA"), 354)
        expect(smtp.docmd("."), 250)


def expect(reply, code):
    if reply[0] != code:
        sys.exit(f"expected {code}, got {reply}")


def main():
    tls, port, *files = sys.argv[1:]
    with connect(tls, int(port)) as smtp:
        for file in files:
            send(smtp, pathlib.Path(file).read_bytes())


main()
