// Composes three messages, then sends each file named on the command line as it is, all over one connection of a pool.
// Writes every line that it sends and receives, but for texts, to standard output.
//
// usage: send.js clear|starttls|implicit PORT FILE...

const fs = require("fs");
const nodemailer = require("nodemailer");

const [tls, port, ...files] = process.argv.slice(2);

const show = (_entry, message, ...values) => console.log(message, ...values);
const logger = { level() {} };
for (const level of ["trace", "debug", "info", "warn", "error", "fatal"]) {
  logger[level] = show;
}

const transport = nodemailer.createTransport({
  host: "127.0.0.1",
  port: Number(port),
  name: "client.test",
  pool: true,
  maxConnections: 1,
  maxMessages: Infinity,
  secure: tls === "implicit",
  ignoreTLS: tls === "clear",
  requireTLS: tls === "starttls",
  // The certificate is self-signed, as it is between mail servers (RFC 7435).
  tls: { rejectUnauthorized: false },
  logger,
  transactionLog: true,
});

// What is random or of the day otherwise.
const fixed = { messageId: "<1@client.test>", date: new Date(0), baseBoundary: "part" };

const composed = [
  { subject: "plain", text: "one\n.\n..two\n" },
  { subject: "Grüße", text: "Viele Grüße aus Köln\n" },
  {
    subject: "attached",
    text: "see below\n",
    attachments: [{ filename: "octets.bin", content: Buffer.from([0, 10, 13, 46, 128, 255]) }],
  },
].map((mail) => ({ from: "sender@example.org", to: "user@example.net", ...fixed, ...mail }));

const raw = files.map((file) => ({
  envelope: { from: "sender@example.org", to: ["user@example.net"], use8BitMime: true },
  raw: fs.readFileSync(file),
}));

async function main() {
  for (const mail of [...composed, ...raw]) {
    const sent = await transport.sendMail(mail);
    if (!sent.response.startsWith("250 2.0.0")) {
      throw new Error(`expected 250 2.0.0, got ${sent.response}`);
    }
  }
  transport.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
